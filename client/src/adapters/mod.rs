//! Ways into other crates' clients, each a feature: `tower`, `http` and `reqwest`. They pick and report;
//! they must never send anything themselves.

#[cfg(feature = "tower")]
mod discover;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "reqwest")]
mod resolve;
#[cfg(any(feature = "tower", feature = "http"))]
mod trial;

#[cfg(feature = "http")]
pub use self::http::{HttpLayer, HttpService, TrackedBody};
#[cfg(any(feature = "tower", feature = "http"))]
pub use self::trial::CallError;
#[cfg(feature = "tower")]
pub use self::{
    discover::Discover,
    layer::{PickLayer, PickService, Picked},
};
