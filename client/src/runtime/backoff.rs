//! Delays between attempts. Pure: randomness is passed in, and nothing sleeps.

use std::time::Duration;

/// The longest delay that a peer may ask for.
const HINT_MAX: Duration = Duration::from_secs(60);

/// Exponential backoff with full jitter: attempt `n` waits a random part of
/// `min(cap, base * 2^n)` (M. Brooker, "Exponential Backoff And Jitter", 2015).
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// Lowers the longest delay to `cap`, if it is longer.
    pub(crate) fn capped(self, cap: Duration) -> Self {
        Self { cap: self.cap.min(cap), ..self }
    }

    /// Returns the delay before the next attempt. `random` is from 0 to 1. `hint` is the delay that
    /// the peer asked for (bounded); the jitter comes on top, so that its clients don't come back
    /// together.
    pub(crate) fn delay(&mut self, random: f64, hint: Option<Duration>) -> Duration {
        let jittered = self.ceiling().mul_f64(random.clamp(0.0, 1.0));
        self.attempt = self.attempt.saturating_add(1);
        hint.map_or(jittered, |hint| hint.min(HINT_MAX) + jittered)
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// Returns whether nothing failed since the last reset.
    pub(crate) fn is_fresh(&self) -> bool {
        self.attempt == 0
    }

    /// The longest delay, without a hint.
    pub(crate) fn cap(&self) -> Duration {
        self.cap
    }

    fn ceiling(&self) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempt.min(31));
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    #[test]
    fn ceiling_doubles_up_to_the_cap() {
        let mut backoff = backoff();
        let waits: Vec<u128> = (0..10).map(|_| backoff.delay(1.0, None).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn a_second_cap_only_lowers_the_first() {
        for (cap, expected) in [(120, 100), (10_000, 100), (70, 70)] {
            let mut backoff = backoff().capped(Duration::from_millis(cap));
            backoff.delay(1.0, None);
            assert_eq!(backoff.delay(1.0, None), Duration::from_millis(expected));
        }
    }

    #[test]
    fn jitter_takes_any_part_of_the_ceiling() {
        assert_eq!(backoff().delay(0.0, None), Duration::ZERO);
        assert_eq!(backoff().delay(0.5, None), Duration::from_millis(25));
        assert_eq!(backoff().delay(7.0, None), Duration::from_millis(50));
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = backoff();
        backoff.delay(1.0, None);
        backoff.delay(1.0, None);
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert!(backoff.is_fresh());
        assert_eq!(backoff.delay(1.0, None), Duration::from_millis(50));
    }

    #[test]
    fn many_attempts_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::MAX);
        for _ in 0..100 {
            backoff.delay(1.0, None);
        }
        assert!(backoff.delay(0.5, None) > Duration::ZERO);
    }

    #[test]
    fn a_peers_hint_is_honoured_up_to_a_minute() {
        let hint = Duration::from_secs(2);
        assert_eq!(backoff().delay(0.0, Some(hint)), hint);
        assert_eq!(backoff().delay(1.0, Some(hint)), hint + Duration::from_millis(50));
        assert_eq!(backoff().delay(0.0, Some(Duration::MAX)), HINT_MAX);
    }
}
