//! Mass-expiry protection: one lease that runs out is a death, many at once are more likely a broken
//! network. It counts each namespace's losses and says from when on they are too many; what is
//! then done with a lease is not decided here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    time::Duration,
};

use crate::model::{Change, ChangeKind, Instance, LeaseTerms, Name, Presence, RemovalReason, Tick};

/// Losses that are never too many.
const LOSSES_MIN: u32 = 10;
/// The share of the living, in percent, beyond which losses are too many.
const LOSSES_PERCENT: u64 = 30;
/// How finely the past is kept.
const MOMENT_MS: u64 = 32;
/// How many moments ago nothing matters any more: no window is longer.
const MOMENTS_MAX: u64 = LeaseTerms::TTL_MAX.as_millis() as u64 / MOMENT_MS + 1;

/// The losses of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Protection {
    /// The namespaces that have instances.
    pasts: HashMap<Name, Past>,
    /// Those of them that have suspects.
    holds: BTreeMap<Name, Hold>,
}

/// How many lived and how many were lost, for as long as it matters.
#[derive(Debug, Default)]
struct Past {
    /// How things stood at the end of each moment in which they changed, the oldest first.
    moments: VecDeque<Moment>,
}

/// A short while. Leases that run out in one batch of the server's work share it.
#[derive(Debug, Clone, Copy, Default)]
struct Moment {
    /// Counted from tick 0.
    number: u64,
    /// Leases that live and are not held.
    living: u32,
    /// Leases that ever ran out, modulo 2^32.
    lost: u32,
}

/// The suspects of a namespace.
#[derive(Debug)]
struct Hold {
    since: Tick,
    /// When the latest of them became one.
    latest: Tick,
    why: Losses,
    slots: BTreeSet<u32>,
}

/// How many leases of a namespace ran out in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Losses {
    /// So many ran out.
    pub lost: u32,
    /// Of so many.
    pub of: u32,
    /// How long the window was.
    pub within: Duration,
}

impl fmt::Display for Losses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, of, within } = self;
        let within = humantime::format_duration(*within);
        write!(formatter, "{lost} of {of} leases ran out or lost their stream within {within}")
    }
}

impl Losses {
    /// Whether they are more than deaths.
    pub(super) fn are_too_many(&self) -> bool {
        let share_max = u64::from(self.of) * LOSSES_PERCENT;
        self.lost >= LOSSES_MIN && u64::from(self.lost) * 100 > share_max
    }
}

/// A namespace that has suspects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// The namespace.
    pub namespace: Name,
    /// How many suspects.
    pub held: usize,
    /// Since when there are any.
    pub since: Tick,
    /// When the last of them goes, unless it renews.
    pub until: Tick,
    /// What made it begin.
    pub why: Losses,
}

impl Protection {
    /// The losses of a namespace between `begin` and `now`, `planned` ones that are not absorbed
    /// yet included.
    pub(super) fn losses(&self, namespace: &Name, begin: Tick, now: Tick, planned: u32) -> Losses {
        let within = Duration::from_millis(now.0.saturating_sub(begin.0));
        let Some(past) = self.pasts.get(namespace) else {
            return Losses { lost: planned, of: planned, within };
        };
        let (then, last) = (past.at(begin), past.last());
        let lost = last.lost.wrapping_sub(then.lost);
        // A namespace that grew is measured by what it grew to: else its first loss after a start
        // would weigh as much as all of it.
        let of = then.living.max(last.living + lost);
        Losses { lost: lost + planned, of, within }
    }

    /// Takes note of a change to an instance with the given slot, whose window begins at `begin`.
    pub(super) fn absorb(&mut self, change: &Change, slot: u32, begin: Tick, now: Tick) {
        let namespace = &change.instance.service.namespace;
        let suspect = change.instance.presence == Presence::Suspect;
        match &change.kind {
            ChangeKind::Added => self.note(namespace, now, |moment| moment.living += 1),
            ChangeKind::Updated { before, .. } => {
                match (before.presence == Presence::Suspect, suspect) {
                    (false, true) => {
                        self.hold(namespace, slot, begin, now);
                        self.note(namespace, now, |moment| {
                            moment.living -= 1;
                            moment.lost = moment.lost.wrapping_add(1);
                        });
                    }
                    (true, false) => {
                        self.note(namespace, now, |moment| moment.living += 1);
                        self.release(namespace, slot);
                    }
                    _ => {}
                }
            }
            // It was counted as lost when it became a suspect.
            ChangeKind::Removed(_) if suspect => self.release(namespace, slot),
            ChangeKind::Removed(reason) => {
                let ran_out =
                    matches!(reason, RemovalReason::Expired | RemovalReason::Disconnected);
                self.note(namespace, now, |moment| {
                    moment.living -= 1;
                    moment.lost = moment.lost.wrapping_add(u32::from(ran_out));
                });
            }
        }
        self.forget_if_empty(namespace);
    }

    /// Takes note of an instance from before, with the given slot.
    pub(super) fn restore(&mut self, instance: &Instance, slot: u32, now: Tick) {
        let namespace = &instance.service.namespace;
        match instance.presence {
            Presence::Confirmed => self.note(namespace, now, |moment| moment.living += 1),
            Presence::Suspect => {
                self.hold(namespace, slot, now, now);
                self.note(namespace, now, |_| {});
            }
        }
    }

    fn note(&mut self, namespace: &Name, now: Tick, alter: impl FnOnce(&mut Moment)) {
        match self.pasts.get_mut(namespace) {
            Some(past) => past.note(now, alter),
            None => self.pasts.entry(namespace.clone()).or_default().note(now, alter),
        }
    }

    fn hold(&mut self, namespace: &Name, slot: u32, begin: Tick, now: Tick) {
        if !self.holds.contains_key(namespace) {
            let why = self.losses(namespace, begin, now, 0);
            let hold = Hold { since: now, latest: now, why, slots: BTreeSet::new() };
            self.holds.insert(namespace.clone(), hold);
        }
        if let Some(hold) = self.holds.get_mut(namespace) {
            hold.latest = now;
            hold.slots.insert(slot);
        }
    }

    fn release(&mut self, namespace: &Name, slot: u32) {
        let Some(hold) = self.holds.get_mut(namespace) else { return };
        hold.slots.remove(&slot);
        if hold.slots.is_empty() {
            self.holds.remove(namespace);
        }
    }

    /// A namespace without instances has no past either: there is nothing to protect.
    fn forget_if_empty(&mut self, namespace: &Name) {
        let empty = self.pasts.get(namespace).is_some_and(|past| past.last().living == 0);
        if empty && !self.holds.contains_key(namespace) {
            self.pasts.remove(namespace);
        }
    }

    /// The slots of a namespace's suspects.
    pub(super) fn held(&self, namespace: &Name) -> impl Iterator<Item = u32> + '_ {
        self.holds.get(namespace).into_iter().flat_map(|hold| hold.slots.iter().copied())
    }

    /// The namespaces that have suspects, each of which stays for `hold_max`.
    pub(super) fn protected(&self, hold_max: Duration) -> Vec<Protected> {
        let protected = |(namespace, hold): (&Name, &Hold)| Protected {
            namespace: namespace.clone(),
            held: hold.slots.len(),
            since: hold.since,
            until: hold.latest.after(hold_max),
            why: hold.why,
        };
        self.holds.iter().map(protected).collect()
    }
}

impl Past {
    fn last(&self) -> Moment {
        self.moments.back().copied().unwrap_or_default()
    }

    /// How things stood at the end of the moment in which `tick` lies. Before the past that is
    /// kept, nothing changed.
    fn at(&self, tick: Tick) -> Moment {
        let number = tick.0 / MOMENT_MS;
        let after = self.moments.partition_point(|moment| moment.number <= number);
        after.checked_sub(1).map(|index| self.moments[index]).unwrap_or_default()
    }

    fn note(&mut self, now: Tick, alter: impl FnOnce(&mut Moment)) {
        let number = now.0 / MOMENT_MS;
        if self.moments.back().is_none_or(|last| last.number < number) {
            self.moments.push_back(Moment { number, ..self.last() });
            // One that ended before all windows says how they begin.
            while self.moments.get(1).is_some_and(|second| second.number + MOMENTS_MAX < number) {
                self.moments.pop_front();
            }
        }
        if let Some(last) = self.moments.back_mut() {
            alter(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_too_many_beyond_ten_and_thirty_percent() {
        let too_many =
            |lost, of| Losses { lost, of, within: Duration::from_secs(15) }.are_too_many();
        assert!(!too_many(9, 9), "so few may just be gone");
        assert!(too_many(10, 10));
        assert!(too_many(10, 33));
        assert!(!too_many(10, 34));
        assert!(!too_many(30, 100));
        assert!(too_many(31, 100));
        assert!(!too_many(600_000, 2_000_000));
        assert!(too_many(600_001, 2_000_000));
    }

    #[test]
    fn the_past_is_kept_for_as_long_as_the_longest_window() {
        let mut past = Past::default();
        let window_ms = MOMENTS_MAX * MOMENT_MS;
        for now in (0..3 * window_ms).step_by(10) {
            past.note(Tick(now), |moment| moment.living += 1);
            assert_eq!(u64::from(past.last().living), now / 10 + 1);
            if now > window_ms {
                let begin = now - window_ms;
                // The end of the moment in which the window begins.
                let end = (begin / MOMENT_MS + 1) * MOMENT_MS - 1;
                assert_eq!(u64::from(past.at(Tick(begin)).living), end / 10 + 1);
            }
        }
        assert!(past.moments.len() as u64 <= MOMENTS_MAX + 2);
        assert_eq!(past.at(Tick(0)).living, 0, "forgotten");
    }

    #[test]
    fn losses_say_what_happened() {
        let losses = Losses { lost: 31, of: 100, within: Duration::from_secs(15) };
        let text = "31 of 100 leases ran out or lost their stream within 15s";
        assert_eq!(losses.to_string(), text);
    }
}
