//! The fields of requests and responses that the gateway removes, adds or replaces. Pure: requests
//! have passed the [guard](crate::guard) before.

pub(crate) mod forwarded;
pub(crate) mod hop_by_hop;
pub(crate) mod via;
