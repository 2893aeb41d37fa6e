//! When requests are due under an open load, and from when each counts.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Timers wake up within this of when they should; it is the load generator's own doing.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// One sender's share of a load of so many requests a second, whether they are answered or not.
#[derive(Debug)]
pub(crate) struct Pace {
    due: Instant,
    interval: Duration,
}

impl Pace {
    /// The share of one of several senders that take turns, `rate` requests a second in all.
    pub(crate) fn new(begin: Instant, rate: f64, sender: usize, senders: usize) -> Self {
        let turn = Duration::from_secs_f64(1.0 / rate);
        let due = begin + turn.mul_f64(sender as f64);
        Self { due, interval: turn.mul_f64(senders as f64) }
    }

    /// Waits until the next request is due. What is returned is the moment from which its latency
    /// counts: when it was due, however long the one before it kept the sender (so that a stalled
    /// server is charged for what it kept from being sent: Tene, "How NOT to measure latency"), or,
    /// where the sender was idle, when its timer woke it up.
    pub(crate) async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.interval;
        if Instant::now() >= due {
            return due;
        }
        sleep_until(due).await;
        let now = Instant::now();
        if now > due + TIMER_SLACK { due } else { now }
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_stall_held_up_counts_from_when_it_was_due() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin, 100.0, 1, 2);
        assert_eq!(pace.next().await, begin + Duration::from_millis(10));
        advance(Duration::from_millis(70)).await;
        assert_eq!(pace.next().await, begin + Duration::from_millis(30));
        assert_eq!(pace.next().await, begin + Duration::from_millis(50));
    }
}
