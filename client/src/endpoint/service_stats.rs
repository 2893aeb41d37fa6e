//! What the instances of one service share, from view to view. It must never be written to by a choice:
//! all choices read it.

use super::{
    coarse_clock::{CoarseClock, Tick},
    slowest::Slowest,
};
use crate::{metrics::ServiceMetrics, runtime::clock::Instant};

/// The instances of a service, as a whole.
#[derive(Debug)]
pub(crate) struct ServiceStats {
    clock: CoarseClock,
    slowest: Slowest,
    metrics: ServiceMetrics,
}

impl Default for ServiceStats {
    /// Of a service without a name.
    fn default() -> Self {
        Self::new("", "")
    }
}

impl ServiceStats {
    pub(crate) fn new(namespace: &str, service: &str) -> Self {
        let metrics = ServiceMetrics::new(namespace, service);
        Self { clock: CoarseClock::default(), slowest: Slowest::default(), metrics }
    }

    /// Notes what time it is, and gives that.
    pub(crate) fn advance(&self, now: Instant) -> Tick {
        self.clock.advance(now)
    }

    /// What time it was last; 0 before it was told any.
    pub(crate) fn latest(&self) -> Tick {
        self.clock.latest()
    }

    /// The slowest answer lately.
    pub(crate) fn slowest(&self) -> &Slowest {
        &self.slowest
    }

    pub(crate) fn metrics(&self) -> &ServiceMetrics {
        &self.metrics
    }
}
