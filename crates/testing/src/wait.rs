//! Waits that end: each has a deadline, and a panic that names what did not happen.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// The deadline of [`soon`] and [`until`]: no machine is so slow, no failure takes longer to show.
pub const SOON: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits for a future that takes no time where all is well.
///
/// # Panics
/// After [`SOON`], with the name of what was waited for.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("timed out waiting for {what}"),
    }
}

/// Polls a condition until it is true.
///
/// # Panics
/// After [`SOON`], with the name of what was waited for.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            sleep(POLL_INTERVAL).await;
        }
    };
    soon(what, reached).await;
}
