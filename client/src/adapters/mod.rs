//! Adapters to other crates' clients, each a feature: `tower`, `http` and `reqwest`. They pick
//! instances and report outcomes. Never send anything themselves.

#[cfg(feature = "tower")]
mod discover;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tower")]
mod layer;
#[cfg(any(feature = "tower", feature = "http"))]
mod picked_call;
#[cfg(feature = "reqwest")]
mod resolve;

#[cfg(feature = "http")]
pub use self::http::{HttpLayer, HttpService, TrackedBody};
#[cfg(any(feature = "tower", feature = "http"))]
pub use self::picked_call::CallError;
#[cfg(feature = "tower")]
pub use self::{
    discover::Discover,
    layer::{PickLayer, PickService, Picked},
};
