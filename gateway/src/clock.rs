//! The one place that reads time.

use std::time::{Instant, SystemTime};

/// The present, monotonic.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The present by the wall clock, which may step: for what has an expiry in the calendar, and for logs.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn wall_now() -> SystemTime {
    SystemTime::now()
}
