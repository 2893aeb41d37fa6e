//! Which of the registry's addresses is in use, and when the first of them, home, is tried again.
//! Pure: told what time it is and what chance says. It must never lead all clients to one address.

use std::time::Duration;

use crate::runtime::clock::Instant;

/// The first address in the client's own, random order.
pub(crate) const PRIMARY: usize = 0;

/// How often the wait before home is tried doubles.
const DOUBLINGS_MAX: u32 = 2;

/// A client's place among the addresses, which are numbered in its own, random order: clients that
/// lose the same address go to different ones.
#[derive(Debug)]
pub(crate) struct Failback {
    addresses: usize,
    current: usize,
    /// The shortest wait before home is tried.
    interval: Duration,
    /// How often in a row home was tried, or used, in vain.
    failures: u32,
    /// When home is tried; none while it is believed to be well, and in use.
    probe_at: Option<Instant>,
    /// When home was last found to be well.
    recovered_at: Option<Instant>,
}

impl Failback {
    /// Begins at home. Away from it, home is tried after one to three times `interval`, doubling up to
    /// four times as long for as long as it fails.
    pub(crate) fn new(addresses: usize, interval: Duration) -> Self {
        Self {
            addresses,
            current: PRIMARY,
            interval,
            failures: 0,
            probe_at: None,
            recovered_at: None,
        }
    }

    /// The address in use.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// When home is to be tried next; none where that is of no use.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.probe_at
    }

    /// Something failed at `address`. Where that is in use still, the next one is. `random` is from 0
    /// to 1.
    pub(crate) fn failed(&mut self, address: usize, now: Instant, random: f64) {
        // Of many who failed there together, the first moves.
        if address == self.current {
            self.current = (address + 1) % self.addresses;
        }
        if address != PRIMARY || self.addresses == 1 || self.probe_at.is_some() {
            return;
        }
        // Where home does not last, clients must not go to and fro.
        let lasted =
            self.recovered_at.is_none_or(|recovered_at| now >= recovered_at + self.interval);
        self.failures = if lasted { 0 } else { self.failures.saturating_add(1) };
        self.probe_at = Some(now + self.wait(random));
    }

    /// Home was tried in vain. `random` is from 0 to 1.
    pub(crate) fn probe_failed(&mut self, now: Instant, random: f64) {
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(now + self.wait(random));
    }

    /// Home answers: it is in use again.
    pub(crate) fn probe_succeeded(&mut self, now: Instant) {
        self.current = PRIMARY;
        self.probe_at = None;
        self.recovered_at = Some(now);
    }

    /// The clients of one registry, which all lost it at the same moment, come back at random ones.
    fn wait(&self, random: f64) -> Duration {
        let least = self.interval.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        least.mul_f64(1.0 + 2.0 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const INTERVAL: Duration = Duration::from_secs(15);

    /// One of three addresses, that has just lost its home.
    fn away(now: Instant) -> Failback {
        let mut failback = Failback::new(3, INTERVAL);
        failback.failed(PRIMARY, now, 0.0);
        failback
    }

    fn seconds(failback: &Failback, now: Instant) -> u64 {
        (failback.next_probe().unwrap() - now).as_secs()
    }

    #[test]
    fn a_failure_moves_on_once_for_all_who_saw_it() {
        let mut failback = away(clock::now());
        assert_eq!(failback.current(), 1);
        failback.failed(PRIMARY, clock::now(), 0.0);
        assert_eq!(failback.current(), 1);
        failback.failed(1, clock::now(), 0.0);
        assert_eq!(failback.current(), 2);
        failback.failed(2, clock::now(), 0.0);
        assert_eq!(failback.current(), PRIMARY, "round and round");
    }

    #[test]
    fn home_is_tried_at_a_random_time_that_doubles_up_to_a_bound() {
        let now = clock::now();
        for (random, waits) in [(0.0, [15, 30, 60, 60]), (1.0, [45, 90, 180, 180])] {
            let mut failback = Failback::new(2, INTERVAL);
            failback.failed(PRIMARY, now, random);
            for wait in waits {
                assert_eq!(seconds(&failback, now), wait);
                failback.probe_failed(now, random);
            }
        }
    }

    #[test]
    fn further_failures_do_not_put_the_try_off() {
        let now = clock::now();
        let mut failback = away(now);
        let later = now + Duration::from_secs(10);
        failback.failed(1, later, 1.0);
        failback.failed(PRIMARY, later, 1.0);
        assert_eq!(seconds(&failback, now), 15);
    }

    #[test]
    fn home_is_used_again_once_it_answers() {
        let now = clock::now();
        let mut failback = away(now);
        failback.probe_succeeded(now + INTERVAL);
        assert_eq!((failback.current(), failback.next_probe()), (PRIMARY, None));
        // Of those who have not come home yet one fails where it is: that moves nobody.
        failback.failed(1, now + INTERVAL, 0.0);
        assert_eq!((failback.current(), failback.next_probe()), (PRIMARY, None));
    }

    #[test]
    fn who_came_home_by_failures_alone_still_tries_it() {
        let now = clock::now();
        let mut failback = away(now);
        failback.failed(1, now, 0.0);
        failback.failed(2, now, 0.0);
        assert_eq!((failback.current(), seconds(&failback, now)), (PRIMARY, 15));
    }

    #[test]
    fn a_home_that_does_not_last_is_tried_less_and_less() {
        let mut now = clock::now();
        let mut failback = away(now);
        for wait in [30, 60, 60] {
            failback.probe_succeeded(now);
            now += Duration::from_secs(1);
            failback.failed(PRIMARY, now, 0.0);
            assert_eq!(seconds(&failback, now), wait);
        }
        failback.probe_succeeded(now);
        now += INTERVAL;
        failback.failed(PRIMARY, now, 0.0);
        assert_eq!(seconds(&failback, now), 15);
    }

    #[test]
    fn an_only_address_is_never_left() {
        let mut failback = Failback::new(1, INTERVAL);
        failback.failed(PRIMARY, clock::now(), 0.0);
        assert_eq!((failback.current(), failback.next_probe()), (PRIMARY, None));
    }
}
