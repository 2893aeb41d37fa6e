//! The gateway of a platform: one URL over all services of a Waypost registry, balanced over their
//! instances. The binary is `waypost-gateway`; this library starts gateways in other programs and
//! in tests.

mod admin;
pub mod cli;
mod clock;
mod config;
mod gateway;
mod guard;
mod headers;
mod limits;
mod middleware;
mod observe;
mod problem;
mod proxy;
mod routes;
mod server;
mod settings;
mod start;
mod upstream;

pub use headers::{forwarded::TrustedProxies, via::InvalidPseudonym};
pub use start::{Advertised, GatewayOptions, Running, StartError, start};
pub use waypost_config::reload::LoadError;
