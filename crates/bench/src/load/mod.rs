//! The load: connections, callers at a pace, and their latencies. From the bottom: `timer` and
//! `latencies`, `pace`, `connection`, `callers`.

pub(crate) mod callers;
pub(crate) mod connection;
pub(crate) mod latencies;
pub(crate) mod pace;
pub(crate) mod timer;
