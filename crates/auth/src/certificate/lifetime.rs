//! The time in which a certificate is valid.
//!
//! Pure.

use std::time::{Duration, SystemTime};

/// The time in which a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The first instant.
    pub not_before: SystemTime,
    /// The last instant.
    pub not_after: SystemTime,
}

impl Lifetime {
    /// The lifetime of a certificate that can't be read.
    pub(crate) const NONE: Self =
        Self { not_before: SystemTime::UNIX_EPOCH, not_after: SystemTime::UNIX_EPOCH };

    /// Makes one of Unix times in seconds; those before 1970 count as 1970.
    pub(crate) fn of_unix(not_before: i64, not_after: i64) -> Self {
        let time = |seconds| {
            let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        Self { not_before: time(not_before), not_after: time(not_after) }
    }

    /// Returns whether it has ended.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        // The last instant is a whole second.
        now.duration_since(self.not_after).is_ok_and(|since| since >= Duration::from_secs(1))
    }

    /// Returns whether it has begun.
    #[must_use]
    pub fn has_begun(&self, now: SystemTime) -> bool {
        now >= self.not_before
    }

    /// Returns whether less than a third is left: the certificate should be renewed.
    #[must_use]
    pub fn is_in_last_third(&self, now: SystemTime) -> bool {
        let whole = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let left = self.not_after.duration_since(now).unwrap_or_default();
        left < whole / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_ends_after_its_last_second() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds);
        let lifetime = Lifetime::of_unix(100, 400);
        for (now, begun, last_third, over) in [
            (99_999, false, false, false),
            (100_000, true, false, false),
            (300_000, true, false, false),
            (300_001, true, true, false),
            (400_999, true, true, false),
            (401_000, true, true, true),
        ] {
            let now = at(now);
            assert_eq!(lifetime.has_begun(now), begun, "{now:?}");
            assert_eq!(lifetime.is_in_last_third(now), last_third, "{now:?}");
            assert_eq!(lifetime.is_over(now), over, "{now:?}");
        }
        assert_eq!(Lifetime::of_unix(i64::MIN, i64::MAX).not_before, SystemTime::UNIX_EPOCH);
        assert_eq!(Lifetime::of_unix(-5, -1), Lifetime::NONE);
    }
}
