//! The latency of an instance: a moving average. Lock-free and pure: takes the time as an argument.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::coarse_clock::Tick;

/// The time in which an average that no response confirms decays to 1 / e. Long enough that a slow
/// instance is tried rarely, short enough that it soon gets calls again.
const DECAY_MS: f32 = 2_500.0;
/// The part of the difference by which a response moves the average.
const GAIN: f32 = 0.25;
/// The factor by which one response raises the average at most.
const RISE_MAX: f32 = 2.0;
/// Latencies below this are equal, in nanoseconds: about a millisecond.
pub(crate) const EQUAL_BELOW: f32 = 1_048_576.0;

/// The average latency of an instance's responses, each of which counts for a quarter. One slow
/// response at most doubles it: it may have waited for anything, and only several in a row show
/// that the instance is slow. The first response, which often waited for a connection, does not
/// count until there is a second one; then the faster of the two does.
///
/// The bits of the nanoseconds (an `f32`; 0 if unknown, negative after the first response) above
/// those of the tick at which they were set.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

/// An average at its last change.
#[derive(Clone, Copy)]
pub(crate) struct Estimate {
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

    /// Returns the nanoseconds without decay; 0 or less if there are too few responses.
    #[inline]
    pub(crate) fn nanos(self) -> f32 {
        self.nanos
    }

    /// Returns the nanoseconds with decay; 0 if there are too few responses.
    pub(crate) fn decayed(self, now: Tick) -> f32 {
        let age = (now as u32).wrapping_sub(self.at);
        // Clocks of different threads may differ a little.
        let weight =
            if age == 0 || age > u32::MAX / 2 { 1.0 } else { (-(age as f32) / DECAY_MS).exp() };
        self.nanos.max(0.0) * weight
    }

    fn after(self, nanos: f32) -> f32 {
        let before = self.nanos;
        if before == 0.0 {
            -nanos
        } else if before < 0.0 {
            nanos.min(-before)
        } else {
            (before + (nanos - before) * GAIN).min(before.max(EQUAL_BELOW) * RISE_MAX)
        }
    }
}

impl Latency {
    #[inline]
    pub(crate) fn estimate(&self) -> Estimate {
        Estimate::unpack(self.0.load(Ordering::Relaxed))
    }

    /// Returns the expected nanoseconds of a response; 0 if there are too few responses.
    pub(crate) fn nanos(&self, now: Tick) -> f32 {
        self.estimate().decayed(now)
    }

    /// Adds the latency of a response.
    pub(crate) fn observe(&self, took: Duration, now: Tick) {
        let nanos = nanos(took);
        self.update(|before| Some(Estimate { nanos: before.after(nanos), at: now as u32 }));
    }

    /// Raises the average to `took`, if it is lower.
    pub(crate) fn raise(&self, took: Duration, now: Tick) {
        let nanos = nanos(took);
        self.update(|before| {
            (nanos > before.decayed(now)).then_some(Estimate { nanos, at: now as u32 })
        });
    }

    /// Sets the average to `nanos`, if there is none yet.
    pub(crate) fn assume(&self, nanos: f32, now: Tick) {
        let assumed = Estimate { nanos, at: now as u32 }.pack();
        let _known = self.0.compare_exchange(0, assumed, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn update(&self, change: impl Fn(Estimate) -> Option<Estimate>) {
        let change = |bits| change(Estimate::unpack(bits)).map(Estimate::pack);
        let _unchanged = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

fn nanos(took: Duration) -> f32 {
    (took.as_nanos() as f32).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(200);
    const QUICK: Duration = Duration::from_millis(2);

    fn millis(latency: &Latency, now: Tick) -> f32 {
        latency.nanos(now) / 1e6
    }

    /// A latency after fast responses.
    fn quick() -> Latency {
        let latency = Latency::default();
        (0..9).for_each(|_| latency.observe(QUICK, 1));
        latency
    }

    #[test]
    fn one_slow_response_at_most_doubles_it_and_several_raise_it_to_their_latency() {
        let latency = quick();
        assert!((1.9..2.1).contains(&millis(&latency, 1)));
        latency.observe(SLOW, 2);
        assert!((3.9..4.1).contains(&millis(&latency, 2)), "{}", millis(&latency, 2));
        for _ in 0..30 {
            latency.observe(SLOW, 2);
        }
        assert!((195.0..201.0).contains(&millis(&latency, 2)), "{}", millis(&latency, 2));
        for _ in 0..30 {
            latency.observe(QUICK, 2);
        }
        assert!((1.9..2.2).contains(&millis(&latency, 2)), "{}", millis(&latency, 2));
    }

    #[test]
    fn the_first_response_counts_once_there_is_a_second_one() {
        let latency = Latency::default();
        latency.observe(SLOW, 1);
        assert_eq!(latency.nanos(1).to_bits(), 0);
        latency.observe(QUICK, 1);
        assert!((1.9..2.1).contains(&millis(&latency, 1)));
    }

    #[test]
    fn a_raise_counts_at_once() {
        let latency = quick();
        latency.raise(SLOW, 1);
        assert!((199.0..201.0).contains(&millis(&latency, 1)));
        latency.raise(QUICK, 1);
        assert!((199.0..201.0).contains(&millis(&latency, 1)));
    }

    #[test]
    fn an_unconfirmed_average_decays_and_is_remembered() {
        let latency = quick();
        latency.raise(SLOW, 1);
        let later = millis(&latency, 2_501);
        assert!((70.0..77.0).contains(&later), "1 / e of 200 ms, and not {later}");
        assert!(millis(&latency, 1_000_000) < 0.001);
        // Tried again, it is as slow as before.
        latency.observe(SLOW, 1_000_000);
        assert!(millis(&latency, 1_000_000) > 199.0);
    }

    #[test]
    fn a_clock_that_is_a_little_behind_changes_nothing() {
        let latency = quick();
        latency.raise(SLOW, 1_000);
        assert!(millis(&latency, 990) > 199.0);
    }

    #[test]
    fn an_assumption_holds_until_the_first_response() {
        let latency = Latency::default();
        latency.assume(3e6, 1);
        assert!((2.9..3.1).contains(&millis(&latency, 1)));
        latency.raise(SLOW, 1);
        latency.assume(3e6, 1);
        assert!(millis(&latency, 1) > 199.0);
    }
}
