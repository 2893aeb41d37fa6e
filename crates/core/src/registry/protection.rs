//! Mass-expiry protection: one expired lease is a dead instance, many at once are more likely a
//! broken network. Counts the expired leases of each namespace and finds when they are too many.
//!
//! Pure. The plan decides what happens to a lease.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    time::Duration,
};

use crate::model::{Change, ChangeKind, Instance, LeaseTerms, Name, Presence, RemovalReason, Tick};

/// The count of expired leases below which protection never begins.
const EXPIRED_MIN: u32 = 10;
/// The share of expired leases, in percent, above which protection begins.
const EXPIRED_PERCENT_MAX: u64 = 30;
/// The time that one sample covers.
const SAMPLE_MS: u64 = 32;
/// The age in samples beyond which none is needed: no window is longer.
const SAMPLES_MAX: u64 = LeaseTerms::TTL_MAX.as_millis() as u64 / SAMPLE_MS + 1;

/// The counts and the suspects of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Protection {
    /// By namespace, for those that have instances.
    counts: HashMap<Name, SlidingCounts>,
    /// By namespace, for those that have suspects.
    suspects: BTreeMap<Name, Suspects>,
}

/// Counts of active and expired leases over the longest window.
#[derive(Debug, Default)]
struct SlidingCounts {
    /// The oldest first. Only spans of time in which a count changed have one.
    samples: VecDeque<CountSample>,
}

/// The counts at the end of a span of [`SAMPLE_MS`]. Leases that expire in one turn of the engine
/// share it.
#[derive(Debug, Clone, Copy, Default)]
struct CountSample {
    /// The number of the span, counted from tick 0.
    number: u64,
    /// Active leases that are not held.
    active: u32,
    /// All leases that ever expired, modulo 2^32.
    expired: u32,
}

/// The suspects of a namespace.
#[derive(Debug)]
struct Suspects {
    since: Tick,
    /// The time when the latest of them became one.
    latest: Tick,
    why: ExpiryShare,
    slots: BTreeSet<u32>,
}

/// The share of a namespace's leases that expired in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryShare {
    /// The number of expired leases, which includes those whose stream broke.
    pub expired: u32,
    /// The number of leases.
    pub of: u32,
    /// The length of the window.
    pub within: Duration,
}

impl fmt::Display for ExpiryShare {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expired, of, within } = self;
        let within = humantime::format_duration(*within);
        write!(formatter, "{expired} of {of} leases expired or lost their stream within {within}")
    }
}

impl ExpiryShare {
    /// Returns whether so many expired that a broken network is more likely than dead instances.
    pub(super) fn exceeds_threshold(&self) -> bool {
        let share_max = u64::from(self.of) * EXPIRED_PERCENT_MAX;
        self.expired >= EXPIRED_MIN && u64::from(self.expired) * 100 > share_max
    }
}

/// A namespace that has suspects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedNamespace {
    /// The namespace.
    pub namespace: Name,
    /// The number of suspects.
    pub held: usize,
    /// The start of protection.
    pub since: Tick,
    /// The time when the last suspect is removed, unless it renews.
    pub until: Tick,
    /// The share that started protection.
    pub why: ExpiryShare,
}

impl Protection {
    /// Returns the share of a namespace between `begin` and `now`, including `planned` expired
    /// leases that are not absorbed yet.
    pub(super) fn expiry_share(
        &self,
        namespace: &Name,
        begin: Tick,
        now: Tick,
        planned: u32,
    ) -> ExpiryShare {
        let within = Duration::from_millis(now.0.saturating_sub(begin.0));
        let Some(counts) = self.counts.get(namespace) else {
            return ExpiryShare { expired: planned, of: planned, within };
        };
        let (then, last) = (counts.at(begin), counts.last());
        let expired = last.expired.wrapping_sub(then.expired);
        // Of a namespace that grew, the larger count is taken: otherwise the first expired lease
        // after a start would be all of them.
        let of = then.active.max(last.active + expired);
        ExpiryShare { expired: expired + planned, of, within }
    }

    /// Counts a change to the instance with the given slot, whose window begins at `begin`.
    pub(super) fn absorb(&mut self, change: &Change, slot: u32, begin: Tick, now: Tick) {
        let namespace = &change.instance.service.namespace;
        let suspect = change.instance.presence == Presence::Suspect;
        match &change.kind {
            ChangeKind::Added => self.record(namespace, now, |sample| sample.active += 1),
            ChangeKind::Updated { before, .. } => {
                match (before.presence == Presence::Suspect, suspect) {
                    (false, true) => {
                        self.hold(namespace, slot, begin, now);
                        self.record(namespace, now, |sample| {
                            sample.active -= 1;
                            sample.expired = sample.expired.wrapping_add(1);
                        });
                    }
                    (true, false) => {
                        self.record(namespace, now, |sample| sample.active += 1);
                        self.release(namespace, slot);
                    }
                    _ => {}
                }
            }
            // It was counted as expired when it became a suspect.
            ChangeKind::Removed(_) if suspect => self.release(namespace, slot),
            ChangeKind::Removed(reason) => {
                let expired =
                    matches!(reason, RemovalReason::Expired | RemovalReason::Disconnected);
                self.record(namespace, now, |sample| {
                    sample.active -= 1;
                    sample.expired = sample.expired.wrapping_add(u32::from(expired));
                });
            }
        }
        self.forget_if_empty(namespace);
    }

    /// Counts an instance that was restored, with the given slot.
    pub(super) fn restore(&mut self, instance: &Instance, slot: u32, now: Tick) {
        let namespace = &instance.service.namespace;
        match instance.presence {
            Presence::Confirmed => self.record(namespace, now, |sample| sample.active += 1),
            Presence::Suspect => {
                self.hold(namespace, slot, now, now);
                self.record(namespace, now, |_| {});
            }
        }
    }

    fn record(&mut self, namespace: &Name, now: Tick, alter: impl FnOnce(&mut CountSample)) {
        match self.counts.get_mut(namespace) {
            Some(counts) => counts.record(now, alter),
            None => self.counts.entry(namespace.clone()).or_default().record(now, alter),
        }
    }

    fn hold(&mut self, namespace: &Name, slot: u32, begin: Tick, now: Tick) {
        if !self.suspects.contains_key(namespace) {
            let why = self.expiry_share(namespace, begin, now, 0);
            let hold = Suspects { since: now, latest: now, why, slots: BTreeSet::new() };
            self.suspects.insert(namespace.clone(), hold);
        }
        if let Some(hold) = self.suspects.get_mut(namespace) {
            hold.latest = now;
            hold.slots.insert(slot);
        }
    }

    fn release(&mut self, namespace: &Name, slot: u32) {
        let Some(hold) = self.suspects.get_mut(namespace) else { return };
        hold.slots.remove(&slot);
        if hold.slots.is_empty() {
            self.suspects.remove(namespace);
        }
    }

    /// Drops the counts of a namespace without instances: there is nothing to protect.
    fn forget_if_empty(&mut self, namespace: &Name) {
        let empty = self.counts.get(namespace).is_some_and(|counts| counts.last().active == 0);
        if empty && !self.suspects.contains_key(namespace) {
            self.counts.remove(namespace);
        }
    }

    /// Returns the slots of a namespace's suspects.
    pub(super) fn held(&self, namespace: &Name) -> impl Iterator<Item = u32> + '_ {
        self.suspects.get(namespace).into_iter().flat_map(|hold| hold.slots.iter().copied())
    }

    /// Returns the namespaces that have suspects, each of which is held for `hold_max`.
    pub(super) fn protected(&self, hold_max: Duration) -> Vec<ProtectedNamespace> {
        let protected = |(namespace, hold): (&Name, &Suspects)| ProtectedNamespace {
            namespace: namespace.clone(),
            held: hold.slots.len(),
            since: hold.since,
            until: hold.latest.after(hold_max),
            why: hold.why,
        };
        self.suspects.iter().map(protected).collect()
    }
}

impl SlidingCounts {
    fn last(&self) -> CountSample {
        self.samples.back().copied().unwrap_or_default()
    }

    /// Returns the counts at the end of the span in which `tick` lies; before the first sample, 0.
    fn at(&self, tick: Tick) -> CountSample {
        let number = tick.0 / SAMPLE_MS;
        let after = self.samples.partition_point(|sample| sample.number <= number);
        after.checked_sub(1).map(|index| self.samples[index]).unwrap_or_default()
    }

    fn record(&mut self, now: Tick, alter: impl FnOnce(&mut CountSample)) {
        let number = now.0 / SAMPLE_MS;
        if self.samples.back().is_none_or(|last| last.number < number) {
            self.samples.push_back(CountSample { number, ..self.last() });
            // One sample from before all windows stays: it has the counts at their start.
            while self.samples.get(1).is_some_and(|second| second.number + SAMPLES_MAX < number) {
                self.samples.pop_front();
            }
        }
        if let Some(last) = self.samples.back_mut() {
            alter(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_begins_at_ten_leases_and_above_thirty_percent() {
        let too_many = |expired, of| {
            ExpiryShare { expired, of, within: Duration::from_secs(15) }.exceeds_threshold()
        };
        assert!(!too_many(9, 9), "so few may be dead");
        assert!(too_many(10, 10));
        assert!(too_many(10, 33));
        assert!(!too_many(10, 34));
        assert!(!too_many(30, 100));
        assert!(too_many(31, 100));
        assert!(!too_many(600_000, 2_000_000));
        assert!(too_many(600_001, 2_000_000));
    }

    #[test]
    fn counts_are_kept_for_the_longest_window() {
        let mut counts = SlidingCounts::default();
        let window_ms = SAMPLES_MAX * SAMPLE_MS;
        for now in (0..3 * window_ms).step_by(10) {
            counts.record(Tick(now), |sample| sample.active += 1);
            assert_eq!(u64::from(counts.last().active), now / 10 + 1);
            if now > window_ms {
                let begin = now - window_ms;
                // The end of the span in which the window begins.
                let end = (begin / SAMPLE_MS + 1) * SAMPLE_MS - 1;
                assert_eq!(u64::from(counts.at(Tick(begin)).active), end / 10 + 1);
            }
        }
        assert!(counts.samples.len() as u64 <= SAMPLES_MAX + 2);
        assert_eq!(counts.at(Tick(0)).active, 0, "forgotten");
    }

    #[test]
    fn share_is_shown_with_its_window() {
        let share = ExpiryShare { expired: 31, of: 100, within: Duration::from_secs(15) };
        let text = "31 of 100 leases expired or lost their stream within 15s";
        assert_eq!(share.to_string(), text);
    }
}
