//! Simulated time: all hosts count the same milliseconds since the start, running or not.

use std::{cell::Cell, time::Duration};

use tokio::time::{Instant, advance, sleep_until};

/// Milliseconds since the start of a simulation, or a duration in milliseconds.
pub type Millis = u64;

/// The time that hosts run before packets travel.
pub(crate) const STEP_MS: Millis = 20;

thread_local! {
    static PLACE: Cell<(usize, Millis)> = const { Cell::new((0, 0)) };
}

/// The host that runs on this thread now, and the time at which its step began: for logs.
pub fn here() -> (usize, Millis) {
    PLACE.get()
}

/// Notes which host runs from here on.
pub(crate) fn place(host: usize, now: Millis) {
    PLACE.set((host, now));
}

/// A host's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostClock {
    origin: Instant,
    started_at: Millis,
}

impl HostClock {
    /// A clock of the runtime that this is called in, where it is `now`.
    #[expect(clippy::disallowed_methods, reason = "the clock of a simulated host")]
    pub(crate) fn start(now: Millis) -> Self {
        Self { origin: Instant::now(), started_at: now }
    }

    /// The time, on the host that the clock belongs to.
    pub(crate) fn now(self) -> Millis {
        let millis = self.origin.elapsed().as_millis();
        self.started_at + u64::try_from(millis).expect("a short simulation")
    }

    /// Runs the host from one time to another. A host that is late for `from` was stalled.
    pub(crate) async fn run(self, from: Millis, until: Millis) {
        let missed = from.saturating_sub(self.now());
        if missed > 0 {
            advance(Duration::from_millis(missed)).await;
        }
        sleep_until(self.origin + Duration::from_millis(until - self.started_at)).await;
    }
}
