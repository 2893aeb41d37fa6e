//! The slowest recent response of a service: rises at once, and decays over minutes. Lock-free and
//! pure: takes the time as an argument. Written only by a slower response, as all calls read it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::coarse_clock::Tick;

/// The milliseconds after which half of it is left; a third is left after twice as many.
const HALF_MS: f32 = 120_000.0;

/// The bits of the nanoseconds (an `f32`, 0 if unknown) above those of the tick at which they were
/// set.
#[derive(Debug, Default)]
pub(crate) struct Slowest(AtomicU64);

impl Slowest {
    /// Returns what is left of it; 0 if unknown.
    pub(crate) fn latest(&self, now: Tick) -> Duration {
        Duration::from_nanos(nanos(self.0.load(Ordering::Relaxed), now) as u64)
    }

    /// Adds the latency of a response.
    pub(crate) fn observe(&self, took: Duration, now: Tick) {
        let took = took.as_nanos() as f32;
        let before = self.0.load(Ordering::Relaxed);
        if took > nanos(before, now) {
            let bits = u64::from(took.to_bits()) << 32 | u64::from(now as u32);
            // One of two simultaneous updates may be lost.
            let _raced =
                self.0.compare_exchange(before, bits, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn nanos(bits: u64, now: Tick) -> f32 {
    let age = (now as u32).wrapping_sub(bits as u32);
    // Clocks of different threads may differ a little.
    let age = if age > u32::MAX / 2 { 0.0 } else { age as f32 };
    f32::from_bits((bits >> 32) as u32) / (1.0 + age / HALF_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(12);
    const QUICK: Duration = Duration::from_millis(2);

    fn seconds(slowest: &Slowest, now: Tick) -> f32 {
        slowest.latest(now).as_secs_f32()
    }

    #[test]
    fn it_rises_at_once_and_decays_slowly() {
        let slowest = Slowest::default();
        assert_eq!(slowest.latest(1), Duration::ZERO);
        slowest.observe(QUICK, 1);
        slowest.observe(SLOW, 2);
        for _ in 0..1_000 {
            slowest.observe(QUICK, 3);
        }
        assert!((11.9..12.1).contains(&seconds(&slowest, 3)));
        assert!((5.9..6.1).contains(&seconds(&slowest, 120_002)));
        slowest.observe(Duration::from_secs(7), 120_002);
        assert!((6.9..7.1).contains(&seconds(&slowest, 120_002)));
        assert!(
            (6.9..7.1).contains(&seconds(&slowest, 119_990)),
            "a clock that is a little behind"
        );
    }
}
