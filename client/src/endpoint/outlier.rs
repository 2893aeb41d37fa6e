//! Outlier detection: ejects an instance whose calls fail, and readmits it after a successful
//! probe. Pure: takes the time and randomness as arguments. Never removes an instance: membership
//! is the registry's.

use super::{coarse_clock::Tick, outcome::Outcome};

/// Consecutive failures that eject an instance.
const FAILURES_IN_A_ROW: u32 = 5;
/// The number of calls in a window from which its failure rate counts.
const CALLS_MIN: u32 = 20;
const WINDOW_MS: Tick = 10_000;
/// The length of the first ejection, and of the longest.
const FAILING_EJECTION_MS: (Tick, Tick) = (30_000, 300_000);
/// The same for an instance that took no connection: a probe is cheap, and the cause often short.
const UNREACHABLE_EJECTION_MS: (Tick, Tick) = (1_000, 30_000);
/// The time without an ejection after which the count of ejections starts again.
const FORGET_MS: Tick = 300_000;

/// A change that an outcome causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthChange {
    /// As it was.
    Unchanged,
    /// Eject the instance until then; the first call after that is a probe.
    Eject(Tick),
    /// Readmit the instance: the probe succeeded.
    Readmit,
}

/// The health of one instance.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures_in_a_row: u32,
    window_began: Tick,
    calls: u32,
    failures: u32,
    /// The end of the ejection; 0 if it is not ejected.
    ejected_until: Tick,
    /// The number of ejections in a row.
    ejections: u32,
    readmitted_at: Tick,
}

impl Health {
    /// Returns whether it is ejected, or was and no probe has succeeded since.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected_until > 0
    }

    /// Records an outcome. A `suspect` instance is ejected after one failure. `random` is from 0 to
    /// 1.
    pub(crate) fn record(
        &mut self,
        outcome: Outcome,
        suspect: bool,
        now: Tick,
        random: f64,
    ) -> HealthChange {
        if self.is_ejected() {
            return self.record_ejected(outcome, now, random);
        }
        if now >= self.window_began + WINDOW_MS {
            (self.window_began, self.calls, self.failures) = (now, 0, 0);
        }
        self.calls += 1;
        if outcome == Outcome::Success {
            self.failures_in_a_row = 0;
            return HealthChange::Unchanged;
        }
        self.failures += 1;
        self.failures_in_a_row += 1;
        let is_outlier = suspect
            || outcome == Outcome::Unreachable
            || self.failures_in_a_row >= FAILURES_IN_A_ROW
            || (self.calls >= CALLS_MIN && self.failures * 2 >= self.calls);
        if is_outlier { self.eject(outcome, now, random) } else { HealthChange::Unchanged }
    }

    /// Ignores calls that started before the ejection.
    fn record_ejected(&mut self, outcome: Outcome, now: Tick, random: f64) -> HealthChange {
        if now < self.ejected_until {
            return HealthChange::Unchanged;
        }
        if outcome != Outcome::Success {
            return self.eject(outcome, now, random);
        }
        *self = Self { ejections: self.ejections, readmitted_at: now, ..Self::default() };
        HealthChange::Readmit
    }

    fn eject(&mut self, outcome: Outcome, now: Tick, random: f64) -> HealthChange {
        if !self.is_ejected() && now >= self.readmitted_at + FORGET_MS {
            self.ejections = 0;
        }
        let (first, most) = if outcome == Outcome::Unreachable {
            UNREACHABLE_EJECTION_MS
        } else {
            FAILING_EJECTION_MS
        };
        let doubled = first.saturating_mul(1 << self.ejections.min(16)).min(most);
        // Clients that saw the same failures must not all probe at once.
        let jittered = doubled as f64 * (0.9 + random.clamp(0.0, 1.0) / 5.0);
        self.ejections += 1;
        self.ejected_until = now + jittered as Tick;
        HealthChange::Eject(self.ejected_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(health: &mut Health, outcome: Outcome, now: Tick) -> HealthChange {
        health.record(outcome, false, now, 0.5)
    }

    #[test]
    fn five_failures_in_a_row_eject_and_four_do_not() {
        let mut health = Health::default();
        for _ in 0..10 {
            for _ in 0..4 {
                assert_eq!(record(&mut health, Outcome::Failure, 10), HealthChange::Unchanged);
            }
            for _ in 0..20 {
                assert_eq!(record(&mut health, Outcome::Success, 10), HealthChange::Unchanged);
            }
        }
        for _ in 0..4 {
            record(&mut health, Outcome::Failure, 10);
        }
        assert_eq!(record(&mut health, Outcome::Failure, 10), HealthChange::Eject(30_010));
    }

    #[test]
    fn failing_half_of_the_time_ejects() {
        let mut health = Health::default();
        let mut changes = Vec::new();
        for call in 0..20 {
            let outcome = if call % 2 == 0 { Outcome::Success } else { Outcome::Failure };
            changes.push(record(&mut health, outcome, 10 + call));
        }
        assert!(changes[..19].iter().all(|change| *change == HealthChange::Unchanged));
        assert_eq!(changes[19], HealthChange::Eject(30_029));
        // Half of few calls, or of many in many windows, does not.
        let mut health = Health::default();
        for call in 0..200 {
            let outcome = if call % 2 == 0 { Outcome::Success } else { Outcome::Failure };
            assert_eq!(record(&mut health, outcome, call * 1_000), HealthChange::Unchanged);
        }
    }

    #[test]
    fn one_failure_of_a_suspect_ejects() {
        let mut health = Health::default();
        assert_eq!(health.record(Outcome::Failure, true, 10, 0.5), HealthChange::Eject(30_010));
    }

    #[test]
    fn a_probe_readmits_or_doubles_the_ejection() {
        let mut health = Health::default();
        assert_eq!(record(&mut health, Outcome::Unreachable, 100), HealthChange::Eject(1_100));
        // Calls from before the ejection.
        assert_eq!(record(&mut health, Outcome::Success, 500), HealthChange::Unchanged);
        assert_eq!(record(&mut health, Outcome::Failure, 500), HealthChange::Unchanged);
        assert_eq!(record(&mut health, Outcome::Unreachable, 1_100), HealthChange::Eject(3_100));
        assert_eq!(record(&mut health, Outcome::Unreachable, 3_100), HealthChange::Eject(7_100));
        assert_eq!(record(&mut health, Outcome::Success, 7_100), HealthChange::Readmit);
        // The count of ejections is not reset so soon.
        assert_eq!(record(&mut health, Outcome::Unreachable, 8_000), HealthChange::Eject(16_000));
        assert_eq!(record(&mut health, Outcome::Success, 16_000), HealthChange::Readmit);
        let later = 16_000 + FORGET_MS;
        assert_eq!(
            record(&mut health, Outcome::Unreachable, later),
            HealthChange::Eject(later + 1_000)
        );
    }

    #[test]
    fn the_ejection_is_jittered_and_bounded() {
        for (random, least) in [(0.0, 270_000), (1.0, 330_000)] {
            let mut health = Health { ejections: 40, ejected_until: 1, ..Health::default() };
            let change = health.record(Outcome::Failure, false, 1_000, random);
            assert_eq!(change, HealthChange::Eject(1_000 + least));
        }
    }
}
