//! The latest changes, which watches read at their own pace.
//!
//! Pure. Invariant: bounded in count and bytes. A watch that needs an evicted change starts over
//! with a snapshot.

use std::{collections::VecDeque, sync::Arc};

use super::encoding::SharedEncoding;
use crate::model::{Change, ChangeKind, Revision};

/// Consecutive changes up to the latest.
#[derive(Debug)]
pub struct ChangeLog {
    /// Ordered by revision, without gaps.
    entries: VecDeque<Arc<LogEntry>>,
    /// The revision before the first entry. A watch there or later can continue.
    floor: Revision,
    bytes: usize,
    changes_max: usize,
    bytes_max: usize,
}

/// A change in the log.
#[derive(Debug)]
pub struct LogEntry {
    /// The change.
    pub change: Arc<Change>,
    /// The revision of the change before it in the same service; 0 for none.
    previous: Revision,
    bytes: usize,
    /// The encoded change.
    pub encoded: SharedEncoding,
}

impl ChangeLog {
    /// Makes an empty log that starts after `floor`.
    pub fn new(floor: Revision, changes_max: usize, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), floor, bytes: 0, changes_max, bytes_max }
    }

    /// Returns the earliest revision from which the log can be read.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Adds the next change. The change before it in the same service has revision `previous`.
    /// Returns the evicted entries.
    pub fn append(&mut self, change: Arc<Change>, previous: Revision) -> Vec<Arc<LogEntry>> {
        // Most instances are shared with the registry. All are counted: the log may become the only
        // owner.
        let before = match &change.kind {
            ChangeKind::Updated { before, .. } => before.footprint(),
            ChangeKind::Added | ChangeKind::Removed(_) => 0,
        };
        let bytes = size_of::<LogEntry>() + change.instance.footprint() + before;
        self.bytes += bytes;
        self.entries.push_back(Arc::new(LogEntry {
            change,
            previous,
            bytes,
            encoded: SharedEncoding::default(),
        }));
        let mut evicted = Vec::new();
        while self.entries.len() > self.changes_max
            || (self.bytes > self.bytes_max && self.entries.len() > 1)
        {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes;
            self.floor = entry.change.revision();
            evicted.push(entry);
        }
        evicted
    }

    /// Returns the changes of one service in `(after, up_to]`, going back from its latest change at
    /// `head`. `None`: this takes more than `steps_max` steps, or some are evicted.
    pub fn chain(
        &self,
        head: Revision,
        after: Revision,
        up_to: Revision,
        steps_max: usize,
    ) -> Option<Vec<Arc<LogEntry>>> {
        let mut found = Vec::new();
        let mut revision = head;
        for _ in 0..steps_max {
            if revision <= after {
                found.reverse();
                return Some(found);
            }
            let entry = self.at(revision)?;
            if revision <= up_to {
                found.push(Arc::clone(entry));
            }
            revision = entry.previous;
        }
        None
    }

    /// Returns the changes that `wanted` selects among the next `scan_max` in `(after, up_to]`, and
    /// the revision that was read up to. `None`: some are evicted.
    pub fn scan(
        &self,
        after: Revision,
        up_to: Revision,
        scan_max: usize,
        wanted: impl Fn(&Change) -> bool,
    ) -> Option<(Vec<Arc<LogEntry>>, Revision)> {
        if after < self.floor {
            return None;
        }
        let first = usize::try_from(after.0 - self.floor.0).ok()?;
        let held = self.entries.len().saturating_sub(first);
        let ahead = usize::try_from(up_to.0.saturating_sub(after.0)).unwrap_or(usize::MAX);
        let count = ahead.min(held).min(scan_max);
        let read = self.entries.iter().skip(first).take(count);
        let found = read.filter(|entry| wanted(&entry.change)).cloned().collect();
        Some((found, Revision(after.0 + count as u64)))
    }

    fn at(&self, revision: Revision) -> Option<&Arc<LogEntry>> {
        let index = revision.0.checked_sub(self.floor.0 + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;
    use crate::{
        model::{Content, Instance, Metadata, Parts, Presence, RemovalReason, WallTime},
        testing::{id, key, parts, with_seeds},
    };

    const SERVICES: [&str; 4] = ["a/one", "a/two", "b/one", "b/two"];

    fn change(
        service: &str,
        revision: u64,
        kind: ChangeKind,
        metadata_bytes: usize,
    ) -> Arc<Change> {
        let entries = BTreeMap::from([("k".to_owned(), "x".repeat(metadata_bytes))]);
        let content = Content::from(&Parts { metadata: Metadata::new(&entries), ..parts(1) });
        let instance = Instance {
            service: Arc::new(key(service)),
            id: id("i"),
            content,
            presence: Presence::Confirmed,
            created: Revision(1),
            modified: Revision(revision),
            registered_at: WallTime(0),
        };
        Arc::new(Change { kind, instance: Arc::new(instance) })
    }

    fn some_change(random: &mut Rng, revision: u64) -> Arc<Change> {
        let service = SERVICES[random.usize(..4)];
        let metadata_bytes = if random.u8(..10) == 0 { random.usize(..3_000) } else { 0 };
        let before = change(service, 1, ChangeKind::Added, metadata_bytes / 2);
        let before = Arc::clone(&before.instance);
        let kind = match random.u8(..3) {
            0 => ChangeKind::Added,
            1 => ChangeKind::Updated { before, replaced: false },
            _ => ChangeKind::Removed(RemovalReason::Expired),
        };
        change(service, revision, kind, metadata_bytes)
    }

    fn bytes(change: &Change) -> usize {
        let before = match &change.kind {
            ChangeKind::Updated { before, .. } => before.footprint(),
            _ => 0,
        };
        size_of::<LogEntry>() + change.instance.footprint() + before
    }

    fn revisions(entries: &[Arc<LogEntry>]) -> Vec<Revision> {
        entries.iter().map(|entry| entry.change.revision()).collect()
    }

    /// A naive model: all changes, and the number of them that the log holds.
    struct Naive {
        first: u64,
        changes: Vec<Arc<Change>>,
        held: usize,
    }

    impl Naive {
        fn floor(&self) -> Revision {
            Revision(self.first + (self.changes.len() - self.held) as u64)
        }

        fn last(&self) -> Revision {
            Revision(self.first + self.changes.len() as u64)
        }

        /// Evicts changes beyond the limits, and returns their revisions.
        fn shrink(&mut self, changes_max: usize, bytes_max: usize) -> Vec<Revision> {
            let mut dropped = Vec::new();
            loop {
                let held = &self.changes[self.changes.len() - self.held..];
                let size: usize = held.iter().map(|change| bytes(change)).sum();
                if held.len() <= changes_max && (size <= bytes_max || held.len() <= 1) {
                    return dropped;
                }
                dropped.push(held[0].revision());
                self.held -= 1;
            }
        }

        fn between(
            &self,
            after: Revision,
            up_to: Revision,
            wanted: impl Fn(&Change) -> bool,
        ) -> Vec<Revision> {
            let changes = self.changes.iter().filter(|change| wanted(change));
            let revisions = changes.map(|change| change.revision());
            revisions.filter(|revision| *revision > after && *revision <= up_to).collect()
        }
    }

    fn random_log(seed: u64) {
        let mut random = Rng::with_seed(seed);
        let changes_max = random.usize(1..120);
        let bytes_max = random.usize(1..60) * 1_000;
        let first = random.u64(..1_000);
        let mut log = ChangeLog::new(Revision(first), changes_max, bytes_max);
        let mut naive = Naive { first, changes: Vec::new(), held: 0 };
        let mut heads: BTreeMap<String, Revision> = BTreeMap::new();
        for step in 1..=300 {
            let change = some_change(&mut random, first + step);
            let service = change.instance.service.to_string();
            let previous = heads.insert(service, change.revision()).unwrap_or_default();
            let evicted = log.append(Arc::clone(&change), previous);
            naive.changes.push(change);
            naive.held += 1;
            assert_eq!(revisions(&evicted), naive.shrink(changes_max, bytes_max));
            assert_eq!(log.floor(), naive.floor());
            for _ in 0..4 {
                compare(&mut random, &log, &naive, &heads);
            }
        }
    }

    fn compare(
        random: &mut Rng,
        log: &ChangeLog,
        naive: &Naive,
        heads: &BTreeMap<String, Revision>,
    ) {
        let last = naive.last();
        let after = Revision(random.u64(naive.floor().0.saturating_sub(5)..=last.0));
        let up_to = Revision(random.u64(after.0..=last.0 + 3));
        let service = SERVICES[random.usize(..4)];
        let wanted = |change: &Change| change.instance.service.to_string() == service;
        let scan_max = if random.bool() { usize::MAX } else { random.usize(1..50) };
        let scanned = log.scan(after, up_to, scan_max, wanted);
        if after < naive.floor() {
            assert!(scanned.is_none(), "below the floor");
        } else {
            let (found, read_to) = scanned.expect("the log holds it");
            let limit = after.0.saturating_add(scan_max as u64);
            assert_eq!(read_to.0, up_to.0.min(last.0).min(limit));
            assert_eq!(revisions(&found), naive.between(after, read_to, wanted));
        }
        let head = heads.get(service).copied().unwrap_or_default();
        let steps = naive.between(after, last, wanted).len();
        let steps_max = random.usize(1..40);
        let chained = log.chain(head, after, up_to, steps_max);
        if after >= naive.floor() {
            // One step more than there are changes shows that there are no more.
            assert_eq!(chained.is_some(), steps < steps_max);
        }
        if let Some(found) = chained {
            assert_eq!(revisions(&found), naive.between(after, up_to, wanted));
        }
    }

    #[test]
    fn chains_and_scans_agree_with_a_naive_filter() {
        with_seeds(15, random_log);
    }

    #[test]
    fn log_can_be_read_from_its_floor_and_not_from_below() {
        let mut log = ChangeLog::new(Revision(10), 2, usize::MAX);
        let all = |_: &Change| true;
        assert_eq!(log.scan(Revision(10), Revision(10), 9, all).unwrap().1, Revision(10));
        assert!(log.scan(Revision(9), Revision(10), 9, all).is_none());
        for revision in 11..=13 {
            log.append(change("s", revision, ChangeKind::Added, 0), Revision(revision - 1));
        }
        assert_eq!(log.floor(), Revision(11));
        let (found, read_to) = log.scan(Revision(11), Revision(13), 9, all).unwrap();
        assert_eq!((revisions(&found), read_to), (vec![Revision(12), Revision(13)], Revision(13)));
        assert!(log.scan(Revision(10), Revision(13), 9, all).is_none());
        let chain = |after| log.chain(Revision(13), Revision(after), Revision(13), 9);
        assert_eq!(revisions(&chain(11).unwrap()), [Revision(12), Revision(13)]);
        assert!(chain(10).is_none());
    }

    #[test]
    fn log_holds_one_change_of_any_size() {
        let mut log = ChangeLog::new(Revision(0), 10, 1);
        assert!(log.append(change("s", 1, ChangeKind::Added, 3_000), Revision(0)).is_empty());
        let evicted = log.append(change("s", 2, ChangeKind::Added, 3_000), Revision(1));
        assert_eq!(revisions(&evicted), [Revision(1)]);
        assert_eq!(log.floor(), Revision(1));
    }
}
