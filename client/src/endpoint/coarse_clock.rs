//! Time as the outcomes of calls told it last, so that choosing an instance reads no clock. Pure:
//! told what time it is. It never goes back.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::runtime::clock::Instant;

/// Milliseconds on a timeline, from 1 on.
pub(crate) type Tick = u64;

/// What the instances of one service share.
#[derive(Debug, Default)]
pub(crate) struct CoarseClock {
    /// The first moment that it was told.
    origin: OnceLock<Instant>,
    latest: AtomicU64,
}

impl CoarseClock {
    /// Notes what time it is, and gives that.
    pub(crate) fn advance(&self, now: Instant) -> Tick {
        let since = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        let tick = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        // Written once a millisecond at most: every choice reads it.
        if self.latest() < tick {
            self.latest.fetch_max(tick, Ordering::Relaxed);
        }
        tick
    }

    /// What time it was last; 0 before it was told any.
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
    fn it_begins_with_what_it_is_told_first_and_never_goes_back() {
        let (clock, start) = (CoarseClock::default(), clock::now());
        assert_eq!(clock.latest(), 0);
        assert_eq!(clock.advance(start), 1);
        assert_eq!(clock.advance(start + Duration::from_millis(40)), 41);
        assert_eq!(clock.advance(start + Duration::from_millis(20)), 21);
        assert_eq!(clock.latest(), 41);
    }
}
