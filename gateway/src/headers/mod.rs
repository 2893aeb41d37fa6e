//! The fields of requests and responses that the gateway removes, adds or replaces. Pure.

pub mod forwarded;
pub mod hop_by_hop;
pub mod via;
