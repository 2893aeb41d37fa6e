//! Encodes a batch's changes into rows, several changes a row, so that the log is written and
//! trimmed by few rows instead of by each change. Pure.

use std::ops::Range;

use crate::{
    model::{Change, ChangeKind},
    store::record::{ChangeRecordRef, put_instance},
};

/// The largest row of several changes. With its key it fills a page of 16 KiB; a larger value takes
/// a page of the next power of two, even if most of it stays empty.
const ROW_BYTES: usize = 16 * 1024 - 16;

/// The rows of a batch.
#[derive(Debug, Default)]
pub(super) struct LogRows {
    /// All rows, concatenated.
    bytes: Vec<u8>,
    /// The revision of each row's first change, and the row's start.
    begun: Vec<(u64, usize)>,
    // Buffers of encoded instances.
    instance: Vec<u8>,
    before: Vec<u8>,
}

impl LogRows {
    /// Appends the next change. Returns the range of [its instance](Self::instance).
    pub(super) fn push(&mut self, change: &Change) -> Range<usize> {
        self.instance.clear();
        put_instance(&change.instance, &mut self.instance);
        self.before.clear();
        if let ChangeKind::Updated { before, .. } = &change.kind {
            put_instance(before, &mut self.before);
        }
        let record = ChangeRecordRef::new(&change.kind, &self.instance, &self.before);
        let row = self.begun.last().map(|(_, begin)| self.bytes.len() - begin);
        if row.is_some_and(|row| row + record.next_len() <= ROW_BYTES) {
            return record.put_next(&mut self.bytes);
        }
        self.begun.push((change.revision().0, self.bytes.len()));
        record.put_first(&mut self.bytes)
    }

    /// Returns the bytes of a change's instance.
    pub(super) fn instance(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Iterates over the rows with the revisions of their first changes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let ends = self.begun.iter().skip(1).map(|(_, begin)| *begin).chain([self.bytes.len()]);
        self.begun.iter().zip(ends).map(|((first, begin), end)| (*first, &self.bytes[*begin..end]))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use fastrand::Rng;
    use waypost_core::testing::{id, key, parts, seeds};

    use super::*;
    use crate::{
        model::{Content, Instance, Metadata, Parts, Presence, RemovalReason, Revision, WallTime},
        store::record::{ChangeRecord, InstanceRecord, KeyInterner},
    };

    fn some_change(revision: u64, random: &mut Rng) -> Change {
        let instance = |modified, bytes| {
            let entry = ("k".to_owned(), "v".repeat(bytes));
            let metadata = Metadata::new(&BTreeMap::from([entry]));
            let content = Content::from(&Parts { metadata, ..parts(1) });
            Arc::new(Instance {
                service: Arc::new(key("a")),
                id: id("i"),
                content,
                presence: Presence::Confirmed,
                created: Revision(1),
                modified: Revision(modified),
                registered_at: WallTime(1),
            })
        };
        // Some exceed a row.
        let bytes = [100, 300, 3_000, ROW_BYTES - random.usize(..200)][random.usize(..40) / 13];
        let kind = match random.u8(..3) {
            0 => ChangeKind::Added,
            1 => ChangeKind::Updated { before: instance(revision - 1, 100), replaced: true },
            _ => ChangeKind::Removed(RemovalReason::Expired),
        };
        Change { kind, instance: instance(revision, bytes) }
    }

    #[test]
    fn rows_give_back_the_changes_that_were_pushed() {
        for seed in seeds(20) {
            println!("WAYPOST_SEED={seed}");
            let mut random = Rng::with_seed(seed);
            let revisions = 5..5 + random.u64(1..300);
            let changes: Vec<_> = revisions.map(|at| some_change(at, &mut random)).collect();
            let (mut rows, mut keys) = (LogRows::default(), KeyInterner::default());
            for change in &changes {
                let place = rows.push(change);
                let instance = InstanceRecord::read(rows.instance(place), &mut keys);
                assert_eq!(instance.as_ref(), Ok(&*change.instance));
            }
            let mut read = Vec::new();
            for (first, row) in rows.iter() {
                assert_eq!(first, 5 + read.len() as u64);
                let row_changes = ChangeRecord::read(row, &mut keys).unwrap();
                assert!(row.len() <= ROW_BYTES || row_changes.len() == 1, "{} bytes", row.len());
                read.extend(row_changes);
            }
            assert_eq!(read, changes);
        }
    }
}
