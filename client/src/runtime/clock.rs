//! The clock. Only this file reads time. Decisions depend on the monotonic clock, which tests can
//! pause. The wall clock decides only when a connection moves to renewed credentials.

#[cfg(any(feature = "metrics", feature = "tls"))]
use std::time::SystemTime;
use std::{future::Future, time::Duration};

use futures_util::FutureExt;
use tokio::time;
pub(crate) use tokio::time::{Instant, Sleep};

/// Returns the monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the wall-clock time, which may step. For display, metrics and the ends of certificates.
#[cfg(any(feature = "metrics", feature = "tls"))]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn wall_now() -> SystemTime {
    SystemTime::now()
}

/// Waits until `deadline`; returns at once if it has passed.
pub(crate) async fn sleep_until(deadline: Instant) {
    time::sleep_until(deadline).await;
}

/// Waits for `duration`.
pub(crate) async fn sleep(duration: Duration) {
    time::sleep(duration).await;
}

/// Runs `future` for at most `limit`. Returns `None` and drops it after that.
///
/// Not an `async fn`, which would reserve space for `future` twice.
pub(crate) fn within<F: Future>(
    limit: Duration,
    future: F,
) -> impl Future<Output = Option<F::Output>> {
    time::timeout(limit, future).map(Result::ok)
}

/// Creates a timer that fires at `at` and can be reset.
pub(crate) fn timer(at: Instant) -> Sleep {
    time::sleep_until(at)
}
