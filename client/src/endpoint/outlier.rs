//! Tells the instances that fail from those that don't, by what calls to them come to. Pure: told
//! what time it is, and given its randomness. It never removes an instance: it only says when to leave
//! it alone.

use super::coarse_clock::Tick;

/// Failures in a row after which an instance is left alone.
const FAILURES_IN_A_ROW: u32 = 5;
/// Calls within one window before their rate of failures says anything.
const CALLS_MIN: u32 = 20;
const WINDOW_MS: Tick = 10_000;
/// How long an instance is left alone for the first time, and at most.
const FAILING_MS: (Tick, Tick) = (30_000, 300_000);
/// The same where it took no connection: that is cheap to try, and soon over.
const UNREACHED_MS: (Tick, Tick) = (1_000, 30_000);
/// After so long without another ejection, those before are forgotten.
const GOOD_MS: Tick = 300_000;

/// What a call to an instance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It was served.
    Good,
    /// It was not.
    Bad,
    /// No connection was taken.
    Unreached,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// As it was.
    Nothing,
    /// Leave the instance alone until then; the first call after that is a probe.
    Eject(Tick),
    /// The probe went well.
    Readmit,
}

/// How one instance has done.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures_in_a_row: u32,
    window_began: Tick,
    calls: u32,
    failures: u32,
    /// Until when it is left alone; 0 where it is not.
    ejected_until: Tick,
    /// How often in a row, without a long good time between.
    ejections: u32,
    good_since: Tick,
}

impl Health {
    /// Whether it is left alone, or was and has not done well since.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected_until > 0
    }

    /// Takes in a sign. Of a `suspect` instance one failure is enough. `random` is from 0 to 1.
    pub(crate) fn judge(&mut self, sign: Sign, suspect: bool, now: Tick, random: f64) -> Judgement {
        if self.is_ejected() {
            return self.judge_ejected(sign, now, random);
        }
        if now >= self.window_began + WINDOW_MS {
            (self.window_began, self.calls, self.failures) = (now, 0, 0);
        }
        self.calls += 1;
        if sign == Sign::Good {
            self.failures_in_a_row = 0;
            return Judgement::Nothing;
        }
        self.failures += 1;
        self.failures_in_a_row += 1;
        let is_outlier = suspect
            || sign == Sign::Unreached
            || self.failures_in_a_row >= FAILURES_IN_A_ROW
            || (self.calls >= CALLS_MIN && self.failures * 2 >= self.calls);
        if is_outlier { self.eject(sign, now, random) } else { Judgement::Nothing }
    }

    /// Calls that began before the ejection say nothing new.
    fn judge_ejected(&mut self, sign: Sign, now: Tick, random: f64) -> Judgement {
        if now < self.ejected_until {
            return Judgement::Nothing;
        }
        if sign != Sign::Good {
            return self.eject(sign, now, random);
        }
        *self = Self { ejections: self.ejections, good_since: now, ..Self::default() };
        Judgement::Readmit
    }

    fn eject(&mut self, sign: Sign, now: Tick, random: f64) -> Judgement {
        if !self.is_ejected() && now >= self.good_since + GOOD_MS {
            self.ejections = 0;
        }
        let (first, most) = if sign == Sign::Unreached { UNREACHED_MS } else { FAILING_MS };
        let doubled = first.saturating_mul(1 << self.ejections.min(16)).min(most);
        // Callers that saw the same failures must not all come back at once.
        let jittered = doubled as f64 * (0.9 + random.clamp(0.0, 1.0) / 5.0);
        self.ejections += 1;
        self.ejected_until = now + jittered as Tick;
        Judgement::Eject(self.ejected_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(health: &mut Health, sign: Sign, now: Tick) -> Judgement {
        health.judge(sign, false, now, 0.5)
    }

    #[test]
    fn five_failures_in_a_row_eject_and_four_do_not() {
        let mut health = Health::default();
        for _ in 0..10 {
            for _ in 0..4 {
                assert_eq!(judge(&mut health, Sign::Bad, 10), Judgement::Nothing);
            }
            for _ in 0..20 {
                assert_eq!(judge(&mut health, Sign::Good, 10), Judgement::Nothing);
            }
        }
        for _ in 0..4 {
            judge(&mut health, Sign::Bad, 10);
        }
        assert_eq!(judge(&mut health, Sign::Bad, 10), Judgement::Eject(30_010));
    }

    #[test]
    fn failing_half_of_the_time_ejects() {
        let mut health = Health::default();
        let mut judged = Vec::new();
        for call in 0..20 {
            let sign = if call % 2 == 0 { Sign::Good } else { Sign::Bad };
            judged.push(judge(&mut health, sign, 10 + call));
        }
        assert!(judged[..19].iter().all(|judgement| *judgement == Judgement::Nothing));
        assert_eq!(judged[19], Judgement::Eject(30_029));
        // Half of few, or of many in many windows, does not.
        let mut health = Health::default();
        for call in 0..200 {
            let sign = if call % 2 == 0 { Sign::Good } else { Sign::Bad };
            assert_eq!(judge(&mut health, sign, call * 1_000), Judgement::Nothing);
        }
    }

    #[test]
    fn one_failure_of_a_suspect_ejects() {
        let mut health = Health::default();
        assert_eq!(health.judge(Sign::Bad, true, 10, 0.5), Judgement::Eject(30_010));
    }

    #[test]
    fn a_probe_brings_it_back_or_doubles_the_time() {
        let mut health = Health::default();
        assert_eq!(judge(&mut health, Sign::Unreached, 100), Judgement::Eject(1_100));
        // What was under way before.
        assert_eq!(judge(&mut health, Sign::Good, 500), Judgement::Nothing);
        assert_eq!(judge(&mut health, Sign::Bad, 500), Judgement::Nothing);
        assert_eq!(judge(&mut health, Sign::Unreached, 1_100), Judgement::Eject(3_100));
        assert_eq!(judge(&mut health, Sign::Unreached, 3_100), Judgement::Eject(7_100));
        assert_eq!(judge(&mut health, Sign::Good, 7_100), Judgement::Readmit);
        // Not forgotten so soon.
        assert_eq!(judge(&mut health, Sign::Unreached, 8_000), Judgement::Eject(16_000));
        assert_eq!(judge(&mut health, Sign::Good, 16_000), Judgement::Readmit);
        let later = 16_000 + GOOD_MS;
        assert_eq!(judge(&mut health, Sign::Unreached, later), Judgement::Eject(later + 1_000));
    }

    #[test]
    fn the_time_is_jittered_and_bounded() {
        for (random, least) in [(0.0, 270_000), (1.0, 330_000)] {
            let mut health = Health { ejections: 40, ejected_until: 1, ..Health::default() };
            let judged = health.judge(Sign::Bad, false, 1_000, random);
            assert_eq!(judged, Judgement::Eject(1_000 + least));
        }
    }
}
