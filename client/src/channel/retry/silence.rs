//! The silence after which another instance is tried. Pure.

use std::time::Duration;

/// The least limit, unless the whole call has little time.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// Returns how long an instance may be silent before a call with this timeout (`limit`) and number
/// of `attempts` goes to another one, too. `slowest` is the slowest recent response of the service.
///
/// At most a second, so that a dead instance costs little; less if `limit` would not suffice for
/// all attempts. Longer after slow responses: an instance that is as slow as the others is not
/// silent. The last quarter of `limit` is left for the other instance.
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
    fn a_service_that_is_always_slow_gets_more_time() {
        assert_eq!(silence_limit(ms(30_000), 2, ms(12_000)), ms(18_000));
        assert_eq!(silence_limit(ms(30_000), 2, ms(900)), ms(1_350));
        // There is still time for another one.
        assert_eq!(silence_limit(ms(30_000), 2, ms(28_000)), ms(22_500));
        assert_eq!(silence_limit(ms(400), 3, Duration::MAX), ms(300));
    }
}
