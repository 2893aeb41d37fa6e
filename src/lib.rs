//! Waypost: a service-discovery registry. Instances register over gRPC and heartbeat; the dead are
//! evicted; every change streams at once to every watcher.
//!
//! The library is the server that `waypost serve` runs, for tests and for embedding:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use waypost::{Config, Server, config::StoreKind};
//!
//! let (listen, store) = ("127.0.0.1:0".parse()?, StoreKind::Memory);
//! let config = Config { listen, store, ..Config::default() };
//! let server = Server::bind(config)?;
//! println!("serving at {}", server.address());
//! // In production: a signal. Here the server stops at once.
//! server.run(async {}).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The floors, from the bottom, each importing downward only: [`model`] and [`registry`] (the crate
//! `waypost-core`), then [`clock`] and [`pki`], [`store`] and [`auth`], then [`engine`], [`api`],
//! [`server`] with [`config`], and [`cli`] on top.

pub mod api;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod pki;
mod protobuf;
pub mod server;
pub mod store;

pub use config::Config;
pub use server::Server;
pub use waypost_core::{model, registry};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/client.md")]
struct ClientGuide;
