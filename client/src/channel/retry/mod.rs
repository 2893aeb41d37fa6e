//! Whether and when a call that failed is sent again. Pure: told how it failed and what is left of its
//! time, given its randomness. What is not known to be safe is never sent twice.

mod pushback;
mod silence;

use std::time::Duration;

pub(crate) use self::{pushback::Pushback, silence::silence_limit};
use crate::runtime::backoff::Backoff;

/// Of the wait before the first time that an idempotent call is sent again, and before any.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The longest wait of a call that sets no timeout.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryCause {
    /// No instance has seen to it, and none will.
    Unsent,
    /// Its connection was lost: nobody knows.
    ConnectionLost,
    /// An instance answered that it does not serve it now.
    Unavailable(Pushback),
}

/// Where a call is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextInstance {
    /// To an instance that it was not sent to yet, and that is not ejected.
    Untried,
    /// To one that it was sent to, or that is ejected.
    Tried,
}

/// The tries that a call has.
#[derive(Debug)]
pub(super) struct Retry {
    /// In all, the first one included.
    attempts: u32,
    backoff: Backoff,
}

impl Retry {
    /// 1 attempt, or none: only what was not sent is tried again.
    pub(super) fn new(attempts: u32) -> Self {
        Self { attempts, backoff: Backoff::new(BACKOFF.0, BACKOFF.1) }
    }

    /// How long to wait before a call is sent again that was `sent` so many times and has so much time
    /// `left` (`None`: it sets no timeout); `None` where it is not to be sent again. `random` is from
    /// 0 to 1.
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
        // Another instance has done nothing that a wait would help with.
        let wait = if pushback.is_zero() && next == NextInstance::Untried {
            Duration::ZERO
        } else {
            // With jitter on top: those that an instance turns away must not come back together.
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
    fn only_what_was_not_sent_is_tried_again_unasked() {
        for attempts in [0, 1] {
            let mut retry = Retry::new(attempts);
            assert_eq!(retry.wait(RetryCause::ConnectionLost, Tried, 1, None, 0.5), None);
            assert_eq!(retry.wait(UNSPECIFIED, Tried, 1, None, 0.5), None);
            assert_eq!(retry.wait(RetryCause::Unsent, Tried, 0, None, 0.5), Some(Duration::ZERO));
        }
    }

    #[test]
    fn an_idempotent_call_is_sent_so_many_times_in_all() {
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
    fn another_instance_is_not_waited_for_unless_it_was_said_so() {
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
    fn pushback_is_waited_for_at_least() {
        let wait = RetryCause::Unavailable(Pushback::Wait(ms(300)));
        assert_eq!(Retry::new(2).wait(wait, Tried, 1, None, 0.0), Some(ms(300)));
        assert_eq!(Retry::new(2).wait(wait, Tried, 1, None, 1.0), Some(ms(350)));
        assert_eq!(
            Retry::new(2).wait(RetryCause::Unavailable(Pushback::Never), Tried, 1, None, 0.0),
            None
        );
    }

    #[test]
    fn no_call_waits_longer_than_its_time() {
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
