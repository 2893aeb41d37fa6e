//! The one place that reads time. Nothing may be decided by the wall clock: its steps change nothing
//! here, and paused time works in tests.

#[cfg(feature = "metrics")]
use std::time::SystemTime;
use std::{future::Future, time::Duration};

use futures_util::FutureExt;
use tokio::time;
pub(crate) use tokio::time::{Instant, Sleep};

/// The present, monotonic.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The present by the wall clock, which may step: for what is told to users alone.
#[cfg(feature = "metrics")]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn wall_now() -> SystemTime {
    SystemTime::now()
}

/// Waits until `deadline`; at once where it has passed.
pub(crate) async fn sleep_until(deadline: Instant) {
    time::sleep_until(deadline).await;
}

/// Waits for `duration`.
pub(crate) async fn sleep(duration: Duration) {
    time::sleep(duration).await;
}

/// What `future` gives within `limit`, or `None`; the future is dropped then.
///
/// No `async fn`, which would have room for `future` twice.
pub(crate) fn within<F: Future>(
    limit: Duration,
    future: F,
) -> impl Future<Output = Option<F::Output>> {
    time::timeout(limit, future).map(Result::ok)
}

/// A timer that fires at `at`, and can be set to another time.
pub(crate) fn timer(at: Instant) -> Sleep {
    time::sleep_until(at)
}
