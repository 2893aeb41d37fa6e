//! Records that become one: equal refusals of one caller within 10 s, and what strangers do beyond
//! 100 records a second.
//! Pure: the caller passes the time in.
//!
//! Invariant: each record is returned, or counted in one that is.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::record::{AuditKind, AuditOutcome, AuditRecord};
use crate::{
    model::{Tick, WallTime},
    registry::Now,
};

/// The time within which equal refusals are one record, from the first of them.
const WINDOW: Duration = Duration::from_secs(10);

/// The greatest number of different refusals that are held for equal ones. Beyond it the oldest one
/// is returned early.
const HELD_MAX: usize = 4_096;

/// The greatest number of records of strangers in a second.
const STRANGERS_MAX: u32 = 100;

/// The `reason` of the record that counts what strangers did beyond their number.
const STRANGERS_OVER_LIMIT: &str = "STRANGERS_OVER_LIMIT";

/// A record that is ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) record: AuditRecord,
    /// The time of the first one.
    pub(super) wall: WallTime,
    /// The number of equal ones.
    pub(super) count: u64,
}

/// The refusals that wait for equal ones.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// In the order in which their windows end.
    held: VecDeque<Held>,
    /// The place of each in `held`, as the number of those that were ever held before it.
    places: HashMap<AuditRecord, u64>,
    /// The number of those that were held and are not any more.
    released: u64,
    strangers: StrangerSecond,
}

#[derive(Debug)]
struct Held {
    ready: Ready,
    ends: Tick,
}

/// What strangers did within a second.
#[derive(Debug, Default)]
struct StrangerSecond {
    /// The end of the second.
    ends: Tick,
    /// The time of the first one beyond the greatest number.
    wall: Option<WallTime>,
    records: u32,
    /// Those beyond the greatest number, by kind.
    over: [u64; AuditKind::ALL.len()],
}

impl Repeats {
    /// Takes a record; appends those that are ready to `ready`.
    pub(super) fn accept(&mut self, record: AuditRecord, at: Now, ready: &mut Vec<Ready>) {
        self.release(at.tick, ready);
        if !record.is_refusal() {
            ready.push(Ready { record, wall: at.wall, count: 1 });
            return;
        }
        let key = comparable(&record);
        if let Some(held) = self.held(&key) {
            held.ready.count += 1;
            return;
        }
        if record.is_of_stranger() && !self.strangers.admit(record.kind, at) {
            return;
        }
        if self.held.len() == HELD_MAX {
            ready.extend(self.release_first());
        }
        self.places.insert(key, self.released + self.held.len() as u64);
        let held = Ready { record, wall: at.wall, count: 1 };
        self.held.push_back(Held { ready: held, ends: at.tick.after(WINDOW) });
    }

    /// Appends the records whose windows have ended.
    pub(super) fn release(&mut self, now: Tick, ready: &mut Vec<Ready>) {
        if now >= self.strangers.ends {
            self.strangers.finish(ready);
        }
        while self.held.front().is_some_and(|held| now >= held.ends) {
            ready.extend(self.release_first());
        }
    }

    /// Appends all records, whose windows end with this.
    pub(super) fn release_all(&mut self, ready: &mut Vec<Ready>) {
        self.strangers.finish(ready);
        while let Some(first) = self.release_first() {
            ready.push(first);
        }
    }

    fn held(&mut self, key: &AuditRecord) -> Option<&mut Held> {
        let place = self.places.get(key)?.checked_sub(self.released)?;
        self.held.get_mut(usize::try_from(place).ok()?)
    }

    fn release_first(&mut self) -> Option<Ready> {
        let first = self.held.pop_front()?;
        self.places.remove(&comparable(&first.ready.record));
        self.released += 1;
        Some(first.ready)
    }
}

impl StrangerSecond {
    /// Returns whether there may be another record in this second; counts it otherwise.
    fn admit(&mut self, kind: AuditKind, at: Now) -> bool {
        if at.tick >= self.ends {
            *self = Self { ends: at.tick.after(Duration::from_secs(1)), ..Self::default() };
        }
        if self.records < STRANGERS_MAX {
            self.records += 1;
            return true;
        }
        self.wall.get_or_insert(at.wall);
        self.over[kind as usize] += 1;
        false
    }

    /// Appends a record of each kind with the number of those beyond the greatest number.
    fn finish(&mut self, ready: &mut Vec<Ready>) {
        let Some(wall) = self.wall.take() else { return };
        for kind in AuditKind::ALL {
            let count = std::mem::take(&mut self.over[kind as usize]);
            if count > 0 {
                let reason = Some(STRANGERS_OVER_LIMIT);
                let record = AuditRecord::new(kind, AuditOutcome::Unauthenticated);
                ready.push(Ready { record: AuditRecord { reason, ..record }, wall, count });
            }
        }
    }
}

/// Returns a record without what differs between equal refusals: the peer's port and the ids of
/// calls.
fn comparable(record: &AuditRecord) -> AuditRecord {
    let mut record = AuditRecord { correlation_id: None, ..record.clone() };
    if let Some(peer) = &mut record.peer {
        peer.set_port(0);
    }
    record
}

#[cfg(test)]
mod tests {
    use waypost_auth::policy::Principal;

    use super::*;

    fn at(tick: u64) -> Now {
        Now { tick: Tick(tick), wall: WallTime(1_000_000 + tick) }
    }

    fn denied(principal: &str) -> AuditRecord {
        AuditRecord {
            principal: Some(Principal::parse(principal).unwrap()),
            peer: Some("10.0.0.1:1000".parse().unwrap()),
            ..AuditRecord::new(AuditKind::Call, AuditOutcome::Denied)
        }
    }

    fn stranger(address: u32) -> AuditRecord {
        AuditRecord {
            peer: Some((std::net::Ipv4Addr::from(address), 1000).into()),
            ..AuditRecord::new(AuditKind::Session, AuditOutcome::Unauthenticated)
        }
    }

    /// The count and the wall time of each, relative to that of tick 0.
    fn counts(ready: &[Ready]) -> Vec<(u64, u64)> {
        ready.iter().map(|each| (each.count, each.wall.0 - 1_000_000)).collect()
    }

    fn accepted(repeats: &mut Repeats, record: AuditRecord, tick: u64) -> Vec<(u64, u64)> {
        let mut ready = Vec::new();
        repeats.accept(record, at(tick), &mut ready);
        counts(&ready)
    }

    fn released(repeats: &mut Repeats, tick: u64) -> Vec<(u64, u64)> {
        let mut ready = Vec::new();
        repeats.release(Tick(tick), &mut ready);
        counts(&ready)
    }

    #[test]
    fn equal_refusals_within_ten_seconds_are_one_record() {
        let mut repeats = Repeats::default();
        assert_eq!(accepted(&mut repeats, denied("a"), 5), []);
        let other_call = AuditRecord {
            peer: Some("10.0.0.1:2000".parse().unwrap()),
            correlation_id: Some("another".into()),
            ..denied("a")
        };
        assert_eq!(accepted(&mut repeats, other_call, 10_004), []);
        assert_eq!(released(&mut repeats, 10_004), []);
        assert_eq!(released(&mut repeats, 10_005), [(2, 5)]);
        // The next one begins a window of its own, and a record ends that of another.
        assert_eq!(accepted(&mut repeats, denied("a"), 10_006), []);
        assert_eq!(accepted(&mut repeats, denied("b"), 20_006), [(1, 10_006)]);
        assert!(repeats.places.len() == 1 && repeats.held.len() == 1);
    }

    #[test]
    fn different_refusals_are_records_of_their_own() {
        let mut repeats = Repeats::default();
        let others = [
            denied("a"),
            denied("b"),
            AuditRecord { method: Some("Watch"), ..denied("a") },
            AuditRecord { service: Some("orders".parse().unwrap()), ..denied("a") },
            AuditRecord { outcome: AuditOutcome::Limited, ..denied("a") },
            AuditRecord { reason: Some("NOT_ALLOWED"), ..denied("a") },
            AuditRecord { peer: Some("10.0.0.2:1000".parse().unwrap()), ..denied("a") },
            AuditRecord { epoch: Some(2), ..denied("a") },
        ];
        for record in others.iter().chain(&others[..2]) {
            assert_eq!(accepted(&mut repeats, record.clone(), 0), []);
        }
        let mut ready = Vec::new();
        repeats.release_all(&mut ready);
        let expected: Vec<_> = (0..others.len()).map(|i| (if i < 2 { 2 } else { 1 }, 0)).collect();
        assert_eq!(counts(&ready), expected);
        assert!(ready.into_iter().map(|each| each.record).eq(others));
        assert_eq!((repeats.held.len(), repeats.places.len()), (0, 0));
    }

    #[test]
    fn what_was_allowed_or_failed_is_never_held() {
        let mut repeats = Repeats::default();
        for outcome in [AuditOutcome::Allowed, AuditOutcome::Failed] {
            for tick in 0..3 {
                let record = AuditRecord { outcome, ..denied("a") };
                assert_eq!(accepted(&mut repeats, record, tick), [(1, tick)]);
            }
        }
        assert!(repeats.held.is_empty());
    }

    #[test]
    fn strangers_have_a_hundred_records_a_second() {
        let mut repeats = Repeats::default();
        for address in 0..150 {
            assert_eq!(accepted(&mut repeats, stranger(address), 0), []);
        }
        let call = AuditRecord { kind: AuditKind::Call, ..stranger(500) };
        assert_eq!(accepted(&mut repeats, call, 10), []);
        // An equal one is no record of its own, and known callers are not counted.
        assert_eq!(accepted(&mut repeats, stranger(7), 20), []);
        assert_eq!(accepted(&mut repeats, denied("a"), 20), []);
        assert_eq!(released(&mut repeats, 999), []);
        let mut ready = Vec::new();
        repeats.release(Tick(1_000), &mut ready);
        assert_eq!(counts(&ready), [(1, 0), (50, 0)]);
        let kinds: Vec<_> = ready.iter().map(|each| each.record.kind).collect();
        assert_eq!(kinds, [AuditKind::Call, AuditKind::Session]);
        assert!(ready.iter().all(|each| each.record.reason == Some("STRANGERS_OVER_LIMIT")));
        // The next second has room again.
        assert_eq!(accepted(&mut repeats, stranger(900), 1_000), []);
        let first = released(&mut repeats, 10_999);
        assert_eq!(first.len(), 101);
        assert_eq!(first[7], (2, 0));
        assert_eq!(released(&mut repeats, 11_000), [(1, 1_000)]);
    }

    #[test]
    fn held_refusals_are_bounded() {
        let mut repeats = Repeats::default();
        for number in 0..HELD_MAX as u64 {
            assert_eq!(accepted(&mut repeats, denied(&number.to_string()), number), []);
        }
        assert_eq!(accepted(&mut repeats, denied("more"), 5_000), [(1, 0)]);
        assert_eq!(accepted(&mut repeats, denied("1"), 5_001), []);
        assert_eq!(accepted(&mut repeats, denied("and more"), 5_002), [(2, 1)]);
        assert_eq!((repeats.held.len(), repeats.places.len()), (HELD_MAX, HELD_MAX));
    }

    /// Random records: the counts of what is returned add up to what was handed in.
    #[test]
    fn no_record_is_lost_or_counted_twice() {
        for seed in waypost_core::testing::seeds(8) {
            println!("WAYPOST_SEED={seed}");
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut repeats, mut ready, mut tick) = (Repeats::default(), Vec::new(), 0);
            for _ in 0..5_000 {
                tick += random.u64(0..20);
                let record = match random.u8(0..4) {
                    0 => AuditRecord { outcome: AuditOutcome::Allowed, ..denied("a") },
                    1 => denied(&random.u8(0..20).to_string()),
                    _ => stranger(random.u32(0..5_000)),
                };
                repeats.accept(record, at(tick), &mut ready);
            }
            repeats.release_all(&mut ready);
            assert_eq!(ready.iter().map(|each| each.count).sum::<u64>(), 5_000);
            assert_eq!((repeats.held.len(), repeats.places.len()), (0, 0));
        }
    }
}
