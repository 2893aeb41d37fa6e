//! How long an instance takes to answer: an average that one slow answer at most doubles. Lock-free and pure:
//! takes the time as an argument.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::coarse_clock::Tick;

/// In how many milliseconds an average comes down to 1 / e of what it was, where nothing confirms it. Long
/// enough that a slow instance is tried rarely, short enough that it is soon forgiven.
const DECAY_MS: f32 = 2_500.0;
/// What part of the difference to it an answer moves the average by.
const GAIN: f32 = 0.25;
/// How many times higher one answer makes the average, at most.
const RISE_MAX: f32 = 2.0;
/// Latencies below this are equal, in nanoseconds: about a millisecond.
pub(crate) const EQUAL_BELOW: f32 = 1_048_576.0;

/// The average latency of an instance's answers, each of which counts for a quarter. One answer at most
/// doubles it: it may have waited for anything, and only several in a row are an instance that is slow. The
/// first answer, which often had to wait for a connection, does not count until there is a second one; then
/// the quicker of the two does.
///
/// The bits of the nanoseconds (an `f32`; 0 where nothing is known, negative after the first answer) above
/// those of the tick at which they held.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

/// An average as it was when it last changed.
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

    /// The nanoseconds as they were; 0 or less where too little is known.
    #[inline]
    pub(crate) fn nanos(self) -> f32 {
        self.nanos
    }

    /// What is left of them where nothing confirms them; 0 where too little is known.
    pub(crate) fn decayed(self, now: Tick) -> f32 {
        let age = (now as u32).wrapping_sub(self.at);
        // Callers' clocks may be a little apart.
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

    /// The nanoseconds that an answer is expected to take; 0 where too little is known.
    pub(crate) fn nanos(&self, now: Tick) -> f32 {
        self.estimate().decayed(now)
    }

    /// Takes in how long an answer took.
    pub(crate) fn observe(&self, took: Duration, now: Tick) {
        let nanos = nanos(took);
        self.update(|before| Some(Estimate { nanos: before.after(nanos), at: now as u32 }));
    }

    /// Takes in that an answer takes at least so long: at once, and all of it.
    pub(crate) fn raise(&self, took: Duration, now: Tick) {
        let nanos = nanos(took);
        self.update(|before| {
            (nanos > before.decayed(now)).then_some(Estimate { nanos, at: now as u32 })
        });
    }

    /// Assumes that an answer takes so many nanoseconds, where nothing is known.
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

    /// One whose answers were quick.
    fn quick() -> Latency {
        let latency = Latency::default();
        (0..9).for_each(|_| latency.observe(QUICK, 1));
        latency
    }

    #[test]
    fn one_slow_answer_at_most_doubles_it_and_several_show_how_slow_an_instance_is() {
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
    fn the_first_answer_counts_once_there_is_a_second_one() {
        let latency = Latency::default();
        latency.observe(SLOW, 1);
        assert_eq!(latency.nanos(1).to_bits(), 0);
        latency.observe(QUICK, 1);
        assert!((1.9..2.1).contains(&millis(&latency, 1)));
    }

    #[test]
    fn what_is_known_to_be_slow_counts_at_once() {
        let latency = quick();
        latency.raise(SLOW, 1);
        assert!((199.0..201.0).contains(&millis(&latency, 1)));
        latency.raise(QUICK, 1);
        assert!((199.0..201.0).contains(&millis(&latency, 1)));
    }

    #[test]
    fn what_nothing_confirms_comes_down_and_is_remembered() {
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
    fn an_assumption_holds_until_something_is_known() {
        let latency = Latency::default();
        latency.assume(3e6, 1);
        assert!((2.9..3.1).contains(&millis(&latency, 1)));
        latency.raise(SLOW, 1);
        latency.assume(3e6, 1);
        assert!(millis(&latency, 1) > 199.0);
    }
}
