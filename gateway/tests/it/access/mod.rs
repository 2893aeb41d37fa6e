//! Authentication and rate limits.

mod auth;
mod rate;
