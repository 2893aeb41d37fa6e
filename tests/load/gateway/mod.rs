//! The gateway between callers and replicas that start, drain and die, as callers see it. Replicas
//! and the registry are processes of their own.
//!
//! ```sh
//! WAYPOST_GATEWAY_SECONDS=60 cargo test --release --test load gateway -- --nocapture
//! ```

mod callers;
mod faults;
mod replica;
mod soak;
mod spread;
mod test_gateway;
