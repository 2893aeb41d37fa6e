//! How long an instance takes to answer: an average that jumps to what is worse and comes down with
//! time. Lock-free and pure: told what time it is.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::timeline::Tick;

/// In how many milliseconds an estimate comes down to 1 / e of what it was, where nothing confirms
/// it. Long enough that a slow instance is tried rarely, short enough that one slow answer is soon
/// forgiven.
const DECAY_MS: f32 = 2_500.0;

/// The exponentially weighted moving average of an instance's latency, weighted by time and sensitive
/// to peaks (as `PeakEwma` of Finagle has it): a slow answer counts at once, quick ones only as time
/// passes.
///
/// The bits of the nanoseconds (an `f32`, 0 where nothing is known) above those of the tick at which
/// they held.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

#[derive(Clone, Copy)]
struct Estimate {
    nanos: f32,
    at: u32,
}

impl Estimate {
    fn unpack(bits: u64) -> Self {
        Self { nanos: f32::from_bits((bits >> 32) as u32), at: bits as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.nanos.to_bits()) << 32 | u64::from(self.at)
    }

    /// How much of it is left. Callers' clocks may be a little apart.
    fn weight(self, now: Tick) -> f32 {
        let age = (now as u32).wrapping_sub(self.at);
        if age == 0 || age > u32::MAX / 2 { 1.0 } else { (-(age as f32) / DECAY_MS).exp() }
    }
}

impl Latency {
    /// The nanoseconds that an answer is expected to take; 0 where nothing is known.
    pub(crate) fn nanos(&self, now: Tick) -> f32 {
        let estimate = Estimate::unpack(self.0.load(Ordering::Relaxed));
        estimate.nanos * estimate.weight(now)
    }

    /// Takes in how long an answer took.
    pub(crate) fn observe(&self, took: Duration, now: Tick) {
        let nanos = (took.as_nanos() as f32).max(1.0);
        let taken_in = |bits| {
            let before = Estimate::unpack(bits);
            let weight = before.weight(now);
            let left = before.nanos * weight;
            // At once where it is worse, or nothing was known.
            let nanos = if nanos >= left { nanos } else { left + nanos * (1.0 - weight) };
            Some(Estimate { nanos, at: now as u32 }.pack())
        };
        let _always = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken_in);
    }

    /// Assumes that an answer takes so many nanoseconds, where nothing is known.
    pub(crate) fn assume(&self, nanos: f32, now: Tick) {
        let assumed = Estimate { nanos, at: now as u32 }.pack();
        let _known = self.0.compare_exchange(0, assumed, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(200);
    const QUICK: Duration = Duration::from_millis(2);

    fn millis(latency: &Latency, now: Tick) -> f32 {
        latency.nanos(now) / 1e6
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_quick_ones_with_time() {
        let latency = Latency::default();
        assert_eq!(latency.nanos(1).to_bits(), 0);
        latency.observe(QUICK, 1);
        latency.observe(SLOW, 2);
        assert!((199.0..201.0).contains(&millis(&latency, 2)));
        for _ in 0..1_000 {
            latency.observe(QUICK, 2);
        }
        assert!(millis(&latency, 2) > 199.0, "no time has passed");
        for now in 2..100_000 {
            latency.observe(QUICK, now);
        }
        assert!((1.9..2.2).contains(&millis(&latency, 100_000)), "{}", millis(&latency, 100_000));
    }

    #[test]
    fn what_nobody_confirms_comes_down() {
        let latency = Latency::default();
        latency.observe(SLOW, 1);
        let later = millis(&latency, 2_501);
        assert!((70.0..77.0).contains(&later), "1 / e of 200 ms, and not {later}");
        assert!(millis(&latency, 1_000_000) < 0.001);
    }

    #[test]
    fn a_clock_that_is_a_little_behind_changes_nothing() {
        let latency = Latency::default();
        latency.observe(SLOW, 1_000);
        assert!(millis(&latency, 990) > 199.0);
        latency.observe(QUICK, 990);
        assert!(millis(&latency, 1_000) > 199.0);
    }

    #[test]
    fn an_assumption_holds_until_something_is_known() {
        let latency = Latency::default();
        latency.assume(3e6, 1);
        assert!((2.9..3.1).contains(&millis(&latency, 1)));
        latency.observe(SLOW, 1);
        latency.assume(3e6, 1);
        assert!(millis(&latency, 1) > 199.0);
    }
}
