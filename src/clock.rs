//! The only reader of time. Everything else is told what time it is.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{
    model::{Tick, WallTime},
    registry::Now,
};

/// Tells the time since it was made. Cheap to copy; copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    /// What people called the time at the start, where that is simulated.
    simulated: Option<WallTime>,
}

impl Clock {
    /// A clock that starts at 0.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self { origin: Instant::now(), simulated: None }
    }

    /// A clock that starts at 0, when people call the time `wall`. For simulations, in which the same
    /// has to happen each time.
    pub fn simulated(wall: WallTime) -> Self {
        Self { simulated: Some(wall), ..Self::start() }
    }

    /// The time since the start. Never goes back.
    pub fn tick(self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// What people call the time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn wall(self) -> WallTime {
        if let Some(wall) = self.simulated {
            return WallTime(wall.0 + self.tick().0);
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since_epoch.unwrap_or_default().as_millis();
        WallTime(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// What people call the given time, past or to come, as the wall clock now goes.
    pub fn wall_at(self, tick: Tick) -> WallTime {
        let Now { tick: now, wall } = self.now();
        WallTime((wall.0 + tick.0).saturating_sub(now.0))
    }

    /// The moment that lies a while ahead, for timers.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn after(self, duration: Duration) -> Instant {
        Instant::now() + duration
    }

    /// What leases count by and what people read.
    pub fn now(self) -> Now {
        Now { tick: self.tick(), wall: self.wall() }
    }
}
