//! Time as the registry sees it: numbers that are passed in.

use std::time::Duration;

/// Milliseconds since the server started, by a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick that lies a while later; what is less than a millisecond counts as one.
    pub fn after(self, duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since the Unix epoch by the wall clock: for people to read, never to decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);
