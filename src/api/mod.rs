//! The protocols of the port. Requests become the model's types, or errors that name the invalid
//! fields. Results of the engine become bytes. No state of the registry is here.
//!
//! [`Router`] is above the protocols and picks one for each request. `grpc` and `http` do not
//! depend on each other.

pub mod grpc;
mod http;
mod router;

pub use router::Router;
