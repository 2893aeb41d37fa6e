//! The pace of an open load: the times at which requests are due and their latencies start.

use std::time::Duration;

use tokio::time::Instant;

use crate::load::timer::sleep_until;

/// One sender's share of a constant rate of requests, independent of responses.
#[derive(Debug)]
pub(crate) struct Pace {
    due: Instant,
    interval: Duration,
}

impl Pace {
    /// Creates the share of one of several alternating senders, `rate` requests a second in all.
    pub(crate) fn new(begin: Instant, rate: f64, sender: usize, senders: usize) -> Self {
        let turn = Duration::from_secs_f64(1.0 / rate);
        let due = begin + turn.mul_f64(sender as f64);
        Self { due, interval: turn.mul_f64(senders as f64) }
    }

    /// Spreads requests over `time` from now on; all at once if it is zero.
    pub(crate) fn within(time: Duration, requests: usize) -> Self {
        Self { due: Instant::now(), interval: time.div_f64(requests.max(1) as f64) }
    }

    /// Waits until the next request is due, and returns that time. Its latency starts then,
    /// whatever delays the request: a stalled server is charged for the requests that it delays
    /// (Tene, "How NOT to measure latency"), and a busy one for the cores that it takes from the
    /// load.
    pub(crate) async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.interval;
        sleep_until(due).await;
        due
    }

    /// Returns the time at which the next request is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn delayed_requests_count_from_their_due_time() {
        let begin = Instant::now() - Duration::from_millis(75);
        let mut pace = Pace::new(begin, 100.0, 1, 2);
        for due in [10, 30, 50, 70, 90] {
            assert_eq!(pace.next().await, begin + Duration::from_millis(due));
        }
        assert!(Instant::now() >= begin + Duration::from_millis(90));
    }
}
