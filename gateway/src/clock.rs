//! The one place that reads the clocks.

use std::time::{Instant, SystemTime};

/// Returns the monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the wall-clock time, which may step: for the expiry of tokens, and for logs.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn wall_now() -> SystemTime {
    SystemTime::now()
}
