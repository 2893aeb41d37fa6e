//! The load: connections, callers at a pace, and the latencies that they measure. `timer` and
//! `latencies` are the lowest, then `pace`, `connection`, `callers`.

pub(crate) mod callers;
pub(crate) mod connection;
pub(crate) mod latencies;
pub(crate) mod pace;
pub(crate) mod timer;
