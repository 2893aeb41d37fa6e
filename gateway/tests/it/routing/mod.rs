//! The route of a request and the target that an instance receives.

mod routes;
mod targets;
