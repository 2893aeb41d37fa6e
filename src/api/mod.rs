//! The protocols of the one port. Requests become the model's types, or an error that names what is
//! wrong; results of the engine become bytes. Holds no state of the registry.
//!
//! [`Router`] stands above the protocols and picks one for each request; `grpc` and `http` do not
//! depend on each other.

pub mod grpc;
mod http;
mod router;

pub use router::Router;
