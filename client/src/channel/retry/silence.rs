//! The silence after which an instance counts as one that does not answer. Pure.

use std::time::Duration;

/// Shorter silences count only where all of a call's time is short.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// How long an instance may be silent before a call that has `limit` and so many `attempts` goes to another
/// one, too. `slowest`: the slowest answer of the service's instances lately.
///
/// At most a second, so that a dead instance costs little; less where `limit` would not do for all
/// attempts. Longer where answers were slower: an instance that is as slow as the others is not silent. The
/// last quarter of `limit` is left for the other instance.
pub(crate) fn silence_limit(limit: Duration, attempts: u32, slowest: Duration) -> Duration {
    let share = limit / attempts.saturating_add(1);
    let least = SILENCE_MIN.min(share);
    let usual = slowest.min(limit) * 3 / 2;
    usual.clamp(least, (limit / 4 * 3).max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_silent_instance_costs_a_second_or_its_share_of_the_time() {
        assert_eq!(silence_limit(ms(30_000), 2, ms(3)), ms(1_000));
        assert_eq!(silence_limit(ms(30_000), 11, ms(0)), ms(1_000));
        assert_eq!(silence_limit(ms(2_000), 3, ms(0)), ms(500));
        assert_eq!(silence_limit(ms(30), 2, ms(3)), ms(10));
        assert_eq!(silence_limit(ms(0), 2, ms(3)), ms(0));
    }

    #[test]
    fn what_is_always_slow_is_waited_for() {
        assert_eq!(silence_limit(ms(30_000), 2, ms(12_000)), ms(18_000));
        assert_eq!(silence_limit(ms(30_000), 2, ms(900)), ms(1_350));
        // And still, there is time for another one.
        assert_eq!(silence_limit(ms(30_000), 2, ms(28_000)), ms(22_500));
        assert_eq!(silence_limit(ms(400), 3, Duration::MAX), ms(300));
    }
}
