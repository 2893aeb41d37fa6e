//! The entrypoint of a platform of services: one URL over all of them, balanced over the replicas that a
//! Waypost registry knows. The binary is `waypost-gateway`; this library is what it is made of.

mod admin;
pub mod cli;
mod clock;
pub mod config;
mod gateway;
pub mod guard;
pub mod headers;
mod limits;
mod middleware;
mod observe;
mod problem;
mod proxy;
pub mod routes;
mod server;
mod settings;
mod start;
mod upstream;

pub use headers::forwarded;

pub use start::{Advertised, Options, Running, StartError, start};
pub use waypost_config::reload::LoadError;
