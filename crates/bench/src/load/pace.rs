//! When requests are due under an open load, from which moment on each counts.

use std::time::Duration;

use tokio::time::Instant;

use crate::load::timer::sleep_until;

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

    /// So many requests from now on, one after the other within so long, or all at once.
    pub(crate) fn within(time: Duration, requests: usize) -> Self {
        Self { due: Instant::now(), interval: time.div_f64(requests.max(1) as f64) }
    }

    /// Waits until the next request is due. Its latency counts from then, which is returned, whatever
    /// kept it from being sent: a stalled server is charged for what it held up (Tene, "How NOT to
    /// measure latency"), and a busy one for what it takes of the cores that it shares with its load.
    pub(crate) async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.interval;
        sleep_until(due).await;
        due
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_stall_held_up_counts_from_when_it_was_due() {
        let begin = Instant::now() - Duration::from_millis(75);
        let mut pace = Pace::new(begin, 100.0, 1, 2);
        for due in [10, 30, 50, 70, 90] {
            assert_eq!(pace.next().await, begin + Duration::from_millis(due));
        }
        assert!(Instant::now() >= begin + Duration::from_millis(90));
    }
}
