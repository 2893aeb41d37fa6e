//! How much of the change log is on disk: at least as many of the latest changes as the limits allow, so
//! that after a restart watches go on where they were, and of those before them what shares a row.

use std::collections::VecDeque;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::tables::{CHANGES, META, REVISION_ROW, number};
use crate::model::Limits;

/// The rows of the log on disk.
#[derive(Debug)]
pub(super) struct StoredLog {
    /// The revision of each one's first change, and its size.
    rows: VecDeque<(u64, usize)>,
    /// The revision of the last one's last change.
    latest: u64,
    bytes: usize,
    changes_max: usize,
    bytes_max: usize,
}

impl StoredLog {
    /// Nothing, which may become as much as the limits say.
    pub(super) fn new(limits: &Limits) -> Self {
        let (changes_max, bytes_max) = (limits.log_changes_max, limits.log_bytes_max);
        Self { rows: VecDeque::new(), latest: 0, bytes: 0, changes_max, bytes_max }
    }

    /// Looks what is there.
    pub(super) fn read(&mut self, database: &Database) -> Result<(), redb::Error> {
        (self.rows, self.bytes) = (VecDeque::new(), 0);
        let transaction = database.begin_read()?;
        for row in transaction.open_table(CHANGES)?.iter()? {
            let (first, changes) = row?;
            self.push(first.value(), changes.value().len());
        }
        let revision = number(transaction.open_table(META)?.get(REVISION_ROW)?);
        self.reach(revision.ok_or_else(|| redb::Error::Corrupted("meta".to_owned()))?);
        Ok(())
    }

    /// Takes note of the next row.
    pub(super) fn push(&mut self, first: u64, bytes: usize) {
        self.rows.push_back((first, bytes));
        self.bytes += bytes;
    }

    /// Takes note of where the last row ends.
    pub(super) fn reach(&mut self, latest: u64) {
        self.latest = latest;
    }

    /// Forgets the oldest row if the limits allow no change of it, and says which it is.
    pub(super) fn pop_excess(&mut self) -> Option<u64> {
        let (oldest, bytes) = *self.rows.front()?;
        let bytes_after = self.bytes - bytes;
        let changes_after =
            self.rows.get(1).map_or(0, |(first, _)| (self.latest + 1).saturating_sub(*first));
        let wanted = usize::try_from(changes_after).is_ok_and(|after| after < self.changes_max)
            && bytes_after < self.bytes_max;
        if wanted {
            return None;
        }
        self.rows.pop_front();
        self.bytes = bytes_after;
        Some(oldest)
    }
}
