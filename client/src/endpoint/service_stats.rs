//! The state that all instances of a service share, across views. Invariant: a pick never writes to
//! it, as all picks read it.

use super::{
    coarse_clock::{CoarseClock, Tick},
    slowest::Slowest,
};
use crate::{metrics::ServiceMetrics, runtime::clock::Instant};

/// The clock, the slowest response and the metrics of a service.
#[derive(Debug)]
pub(crate) struct ServiceStats {
    clock: CoarseClock,
    slowest: Slowest,
    metrics: ServiceMetrics,
}

impl Default for ServiceStats {
    /// Creates the state of a service without a name.
    fn default() -> Self {
        Self::new("", "")
    }
}

impl ServiceStats {
    pub(crate) fn new(namespace: &str, service: &str) -> Self {
        let metrics = ServiceMetrics::new(namespace, service);
        Self { clock: CoarseClock::default(), slowest: Slowest::default(), metrics }
    }

    /// Records the time, and returns its tick.
    pub(crate) fn advance(&self, now: Instant) -> Tick {
        self.clock.advance(now)
    }

    /// Returns the latest tick; 0 before the first time was reported.
    pub(crate) fn latest(&self) -> Tick {
        self.clock.latest()
    }

    /// Returns the slowest recent response.
    pub(crate) fn slowest(&self) -> &Slowest {
        &self.slowest
    }

    pub(crate) fn metrics(&self) -> &ServiceMetrics {
        &self.metrics
    }
}
