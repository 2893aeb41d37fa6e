//! Reads the monotonic and the wall clock, alone in this crate. All else receives the time as an
//! argument.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{
    model::{Tick, WallTime},
    registry::Now,
};

/// A monotonic clock that starts at 0, with the wall clock. Cheap to copy; copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    /// The wall time at the start, in a simulation.
    simulated: Option<WallTime>,
}

impl Clock {
    /// Starts a clock at 0.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self { origin: Instant::now(), simulated: None }
    }

    /// Starts a clock at 0 and at the wall time `wall`. For simulations, which must be repeatable.
    pub fn simulated(wall: WallTime) -> Self {
        Self { simulated: Some(wall), ..Self::start() }
    }

    /// Returns the milliseconds since the start. Never goes back.
    pub fn tick(self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the wall time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn wall(self) -> WallTime {
        if let Some(wall) = self.simulated {
            return WallTime(wall.0 + self.tick().0);
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since_epoch.unwrap_or_default().as_millis();
        WallTime(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Converts a past or future tick to wall time, by the current wall clock.
    pub fn wall_at(self, tick: Tick) -> WallTime {
        let Now { tick: now, wall } = self.now();
        WallTime((wall.0 + tick.0).saturating_sub(now.0))
    }

    /// Returns the instant after `duration`, for timers.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn after(self, duration: Duration) -> Instant {
        Instant::now() + duration
    }

    /// Returns the tick, which leases count by, and the wall time.
    pub fn now(self) -> Now {
        Now { tick: self.tick(), wall: self.wall() }
    }
}
