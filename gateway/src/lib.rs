//! The entrypoint of a platform of services: one URL over all of them, balanced over the replicas that a
//! Waypost registry knows. The binary is `waypost-gateway`; this library is what it is made of.

mod access_log;
mod admin;
pub mod cli;
mod clock;
mod compression;
pub mod config;
mod correlation;
mod exchange;
pub mod forwarded;
mod gateway;
pub mod guard;
pub mod hop;
mod lines;
mod measures;
mod problem;
pub mod rate;
mod rejection;
pub mod routes;
mod server;
mod settings;
mod settings_file;
mod status_trailers;
mod tasks;
mod trimmed;
mod tunnel;
mod unusual;
mod upload;
mod upstreams;
pub mod via;

pub use gateway::{Advertised, Options, Running, StartError, start};
pub use settings_file::OpenError;
