//! Decides whether and when a failed call is retried. Pure: takes the failure, the remaining time
//! and randomness as arguments. Never retries a call that may not be served twice.

mod pushback;
mod silence;

use std::time::Duration;

pub(crate) use self::{pushback::Pushback, silence::silence_limit};
use crate::runtime::backoff::Backoff;

/// The base and the maximum of the backoff of idempotent calls.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The longest wait of a call without a timeout.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The cause for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryCause {
    /// No instance has begun to serve it.
    Unsent,
    /// The connection was lost: an instance may have served it.
    ConnectionLost,
    /// The instance responded that it does not serve it now.
    Unavailable(Pushback),
}

/// The instance of the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextInstance {
    /// An instance that was not tried and is not ejected.
    Untried,
    /// An instance that was tried, or is ejected.
    Tried,
}

/// The retries of a call.
#[derive(Debug)]
pub(super) struct Retry {
    /// The number of attempts, including the first.
    attempts: u32,
    backoff: Backoff,
}

impl Retry {
    /// Creates the retries of a call. With 1 attempt or none, only an unsent call is retried.
    pub(super) fn new(attempts: u32) -> Self {
        Self { attempts, backoff: Backoff::new(BACKOFF.0, BACKOFF.1) }
    }

    /// Returns the wait before a retry of a call that was `sent` so often and has so much time
    /// `left` (`None`: no timeout); `None` if there is to be no retry. `random` is from 0 to 1.
    pub(super) fn wait(
        &mut self,
        cause: RetryCause,
        next: NextInstance,
        sent: u32,
        left: Option<Duration>,
        random: f64,
    ) -> Option<Duration> {
        let pushback = match cause {
            RetryCause::Unsent => return Some(Duration::ZERO),
            _ if sent >= self.attempts => return None,
            RetryCause::ConnectionLost | RetryCause::Unavailable(Pushback::Unspecified) => {
                Duration::ZERO
            }
            RetryCause::Unavailable(Pushback::Wait(wait)) => wait,
            RetryCause::Unavailable(Pushback::Never) => return None,
        };
        // A wait would not help: another instance has not failed.
        let wait = if pushback.is_zero() && next == NextInstance::Untried {
            Duration::ZERO
        } else {
            // With jitter: calls that an instance rejects must not return together.
            pushback.saturating_add(self.backoff.delay(random, None))
        };
        (wait < left.unwrap_or(WAIT_MAX)).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::{NextInstance::*, *};

    const UNSPECIFIED: RetryCause = RetryCause::Unavailable(Pushback::Unspecified);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_an_unsent_call_is_retried_by_default() {
        for attempts in [0, 1] {
            let mut retry = Retry::new(attempts);
            assert_eq!(retry.wait(RetryCause::ConnectionLost, Tried, 1, None, 0.5), None);
            assert_eq!(retry.wait(UNSPECIFIED, Tried, 1, None, 0.5), None);
            assert_eq!(retry.wait(RetryCause::Unsent, Tried, 0, None, 0.5), Some(Duration::ZERO));
        }
    }

    #[test]
    fn an_idempotent_call_has_a_limit_of_attempts() {
        let mut retry = Retry::new(3);
        assert_eq!(retry.wait(RetryCause::ConnectionLost, Tried, 1, None, 1.0), Some(ms(50)));
        assert_eq!(retry.wait(UNSPECIFIED, Tried, 2, None, 1.0), Some(ms(100)));
        assert_eq!(retry.wait(RetryCause::ConnectionLost, Tried, 3, None, 1.0), None);
        assert_eq!(retry.wait(RetryCause::Unsent, Tried, 3, None, 1.0), Some(Duration::ZERO));
    }

    #[test]
    fn waits_are_as_documented() {
        let mut retry = Retry::new(u32::MAX);
        assert_eq!(
            retry.wait(RetryCause::ConnectionLost, Tried, 1, None, 0.0),
            Some(Duration::ZERO)
        );
        let waits: Vec<_> = (1..8)
            .filter_map(|n| retry.wait(RetryCause::ConnectionLost, Tried, n, None, 1.0))
            .collect();
        assert_eq!(waits.iter().max(), Some(&ms(1_000)));
        assert_eq!(WAIT_MAX, ms(5_000));
    }

    #[test]
    fn a_retry_at_another_instance_waits_for_pushback_alone() {
        let mut retry = Retry::new(9);
        for cause in [
            RetryCause::ConnectionLost,
            UNSPECIFIED,
            RetryCause::Unavailable(Pushback::Wait(Duration::ZERO)),
        ] {
            assert_eq!(retry.wait(cause, Untried, 1, None, 1.0), Some(Duration::ZERO));
        }
        let wait = RetryCause::Unavailable(Pushback::Wait(ms(300)));
        assert_eq!(retry.wait(wait, Untried, 1, None, 0.0), Some(ms(300)));
        assert_eq!(retry.wait(RetryCause::ConnectionLost, Untried, 9, None, 1.0), None);
        assert_eq!(
            retry.wait(RetryCause::ConnectionLost, Untried, 1, Some(Duration::ZERO), 1.0),
            None
        );
    }

    #[test]
    fn pushback_is_the_least_wait() {
        let wait = RetryCause::Unavailable(Pushback::Wait(ms(300)));
        assert_eq!(Retry::new(2).wait(wait, Tried, 1, None, 0.0), Some(ms(300)));
        assert_eq!(Retry::new(2).wait(wait, Tried, 1, None, 1.0), Some(ms(350)));
        assert_eq!(
            Retry::new(2).wait(RetryCause::Unavailable(Pushback::Never), Tried, 1, None, 0.0),
            None
        );
    }

    #[test]
    fn no_retry_waits_beyond_the_timeout() {
        let wait = |wait_ms| RetryCause::Unavailable(Pushback::Wait(ms(wait_ms)));
        assert_eq!(Retry::new(2).wait(wait(300), Tried, 1, Some(ms(300)), 0.0), None);
        assert_eq!(Retry::new(2).wait(wait(300), Tried, 1, Some(ms(301)), 0.0), Some(ms(300)));
        assert_eq!(
            Retry::new(2).wait(wait(60_000), Tried, 1, Some(ms(90_000)), 0.0),
            Some(ms(60_000))
        );
        assert_eq!(Retry::new(2).wait(wait(5_000), Tried, 1, None, 0.0), None);
        let years = Some(Duration::from_secs(99_999_999 * 3600));
        assert_eq!(Retry::new(2).wait(wait(u64::MAX), Tried, 1, years, 1.0), None);
        assert_eq!(
            Retry::new(2).wait(RetryCause::ConnectionLost, Tried, 1, Some(Duration::ZERO), 0.0),
            None
        );
    }
}
