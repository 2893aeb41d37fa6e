//! The entrypoint of a platform of services: one URL over all of them.

pub mod auth;
pub mod rate;
