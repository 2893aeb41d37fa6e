//! The latest time that the outcome of a call reported, so that a pick reads no clock. Pure: takes
//! the time as an argument. Invariant: the latest time never decreases.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::runtime::clock::Instant;

/// Milliseconds since the clock's origin, from 1 on.
pub(crate) type Tick = u64;

/// A clock that all instances of a service share.
#[derive(Debug, Default)]
pub(crate) struct CoarseClock {
    /// The first time that was reported.
    origin: OnceLock<Instant>,
    latest: AtomicU64,
}

impl CoarseClock {
    /// Records the time, and returns its tick.
    pub(crate) fn advance(&self, now: Instant) -> Tick {
        let since = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        let tick = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        // Written at most once a millisecond: every pick reads it.
        if self.latest() < tick {
            self.latest.fetch_max(tick, Ordering::Relaxed);
        }
        tick
    }

    /// Returns the latest tick; 0 before the first time was reported.
    pub(crate) fn latest(&self) -> Tick {
        self.latest.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::clock;

    #[test]
    fn it_starts_at_the_first_time_and_never_goes_back() {
        let (clock, start) = (CoarseClock::default(), clock::now());
        assert_eq!(clock.latest(), 0);
        assert_eq!(clock.advance(start), 1);
        assert_eq!(clock.advance(start + Duration::from_millis(40)), 41);
        assert_eq!(clock.advance(start + Duration::from_millis(20)), 21);
        assert_eq!(clock.latest(), 41);
    }
}
