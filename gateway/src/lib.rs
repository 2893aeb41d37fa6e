//! The entrypoint of a platform of services: one URL over all of them.

pub mod auth;
pub mod forwarded;
pub mod guard;
pub mod hop;
pub mod rate;
pub mod routes;
pub mod via;
