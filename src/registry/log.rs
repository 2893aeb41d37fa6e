//! The latest changes, for watches to read at their own pace. Bounded in count and bytes: what
//! falls off at the old end is gone, and who needs it starts over with a snapshot.

use std::{collections::VecDeque, sync::Arc};

use super::Memo;
use crate::model::{Change, ChangeKind, Revision};

/// Consecutive changes up to the present.
#[derive(Debug)]
pub struct ChangeLog {
    /// Their revisions follow one upon another.
    entries: VecDeque<Arc<LogEntry>>,
    /// The revision before the first entry: who stands there or later can go on.
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
    /// What the border made of it.
    pub memo: Memo,
}

impl ChangeLog {
    /// An empty log that begins after `floor`.
    pub fn new(floor: Revision, changes_max: usize, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), floor, bytes: 0, changes_max, bytes_max }
    }

    /// The position from which the log can be read on.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Adds the next change, whose predecessor in its service was at `previous`. Returns what fell
    /// off.
    pub fn append(&mut self, change: Arc<Change>, previous: Revision) -> Vec<Arc<LogEntry>> {
        // Instances are mostly shared with the registry; counted is what they may come to hold.
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
            memo: Memo::default(),
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

    /// The changes of one service in `(after, up_to]`, found by going back from its latest one at
    /// `head`. `None`: there are more than `steps_max` steps to go, or some have fallen off.
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

    /// Reads on after `after`: the changes that `wanted` picks among the next `scan_max`, not
    /// beyond `up_to`, and the position read up to. `None`: some have fallen off.
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
        let count = usize::try_from(up_to.0.saturating_sub(after.0)).ok()?.min(held).min(scan_max);
        let read = self.entries.iter().skip(first).take(count);
        let found = read.filter(|entry| wanted(&entry.change)).cloned().collect();
        Some((found, Revision(after.0 + count as u64)))
    }

    fn at(&self, revision: Revision) -> Option<&Arc<LogEntry>> {
        let index = revision.0.checked_sub(self.floor.0 + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }
}
