//! Outages of the registry.

use std::time::Instant;

/// A time in which the registry did not run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    pub(crate) kind: OutageKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutageKind {
    /// Stopped with SIGSTOP and continued.
    Stopped,
    /// Killed, and started again with an empty memory.
    Killed,
}
