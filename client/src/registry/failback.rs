//! Failover and failback: which of the registry's addresses is in use, and when the primary one is
//! probed again. Pure: time and randomness are passed in. Never sends all clients to one address.

use std::time::Duration;

use crate::runtime::clock::Instant;

/// The first address in the client's own, random order.
pub(crate) const PRIMARY: usize = 0;

/// The most doublings of the delay before a probe.
const DOUBLINGS_MAX: u32 = 2;

/// The address that a client uses, and the state of the primary one. Each client numbers the
/// addresses in a random order of its own, so that clients that lose the same address move to
/// different ones.
#[derive(Debug)]
pub(crate) struct Failback {
    addresses: usize,
    current: usize,
    /// The shortest delay before the primary address is probed.
    interval: Duration,
    /// The failures of the primary address in a row, in use or probed.
    failures: u32,
    /// The time of the next probe; none while it is in use and works.
    probe_at: Option<Instant>,
    /// The time of the last recovery.
    recovered_at: Option<Instant>,
}

impl Failback {
    /// Starts with the primary address. After it failed, it is probed after one to three times
    /// `interval`, doubling up to four times as long while it fails.
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

    /// The time of the next probe; none if no probe is needed.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.probe_at
    }

    /// Takes note of a failure at `address`. If that is the one in use, moves on to the next one.
    /// `random` is from 0 to 1.
    pub(crate) fn failed(&mut self, address: usize, now: Instant, random: f64) {
        // Of many calls that failed there together, the first one moves on.
        if address == self.current {
            self.current = (address + 1) % self.addresses;
        }
        if address != PRIMARY || self.addresses == 1 || self.probe_at.is_some() {
            return;
        }
        // A primary address that keeps failing must not make clients move back and forth.
        let lasted =
            self.recovered_at.is_none_or(|recovered_at| now >= recovered_at + self.interval);
        self.failures = if lasted { 0 } else { self.failures.saturating_add(1) };
        self.probe_at = Some(now + self.wait(random));
    }

    /// The probe of the primary address failed. `random` is from 0 to 1.
    pub(crate) fn probe_failed(&mut self, now: Instant, random: f64) {
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(now + self.wait(random));
    }

    /// The primary address works: it is in use again.
    pub(crate) fn probe_succeeded(&mut self, now: Instant) {
        self.current = PRIMARY;
        self.probe_at = None;
        self.recovered_at = Some(now);
    }

    /// Clients that lost the registry at the same moment come back at random ones.
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

    /// One of three addresses, whose primary one has just failed.
    fn failed_over(now: Instant) -> Failback {
        let mut failback = Failback::new(3, INTERVAL);
        failback.failed(PRIMARY, now, 0.0);
        failback
    }

    fn seconds(failback: &Failback, now: Instant) -> u64 {
        (failback.next_probe().unwrap() - now).as_secs()
    }

    #[test]
    fn a_failure_moves_on_once_however_many_calls_saw_it() {
        let mut failback = failed_over(clock::now());
        assert_eq!(failback.current(), 1);
        failback.failed(PRIMARY, clock::now(), 0.0);
        assert_eq!(failback.current(), 1);
        failback.failed(1, clock::now(), 0.0);
        assert_eq!(failback.current(), 2);
        failback.failed(2, clock::now(), 0.0);
        assert_eq!(failback.current(), PRIMARY, "after the last comes the first");
    }

    #[test]
    fn the_primary_is_probed_after_a_random_delay_that_doubles_up_to_a_bound() {
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
    fn further_failures_do_not_postpone_the_probe() {
        let now = clock::now();
        let mut failback = failed_over(now);
        let later = now + Duration::from_secs(10);
        failback.failed(1, later, 1.0);
        failback.failed(PRIMARY, later, 1.0);
        assert_eq!(seconds(&failback, now), 15);
    }

    #[test]
    fn the_primary_is_used_again_once_it_recovered() {
        let now = clock::now();
        let mut failback = failed_over(now);
        failback.probe_succeeded(now + INTERVAL);
        assert_eq!((failback.current(), failback.next_probe()), (PRIMARY, None));
        // A call that is still elsewhere fails there: that moves no other call.
        failback.failed(1, now + INTERVAL, 0.0);
        assert_eq!((failback.current(), failback.next_probe()), (PRIMARY, None));
    }

    #[test]
    fn the_primary_is_probed_even_if_failures_led_back_to_it() {
        let now = clock::now();
        let mut failback = failed_over(now);
        failback.failed(1, now, 0.0);
        failback.failed(2, now, 0.0);
        assert_eq!((failback.current(), seconds(&failback, now)), (PRIMARY, 15));
    }

    #[test]
    fn a_primary_that_keeps_failing_is_probed_ever_more_rarely() {
        let mut now = clock::now();
        let mut failback = failed_over(now);
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
    fn a_single_address_stays_in_use() {
        let mut failback = Failback::new(1, INTERVAL);
        failback.failed(PRIMARY, clock::now(), 0.0);
        assert_eq!((failback.current(), failback.next_probe()), (PRIMARY, None));
    }
}
