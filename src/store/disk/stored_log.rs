//! The extent of the change log on disk: at least the latest changes that the limits allow, so that
//! watches resume after a restart, and the older changes that share a row with them.

use std::collections::VecDeque;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::tables::{CHANGES, META, REVISION_ROW, number};
use crate::model::Limits;

/// The rows of the log on disk.
#[derive(Debug)]
pub(super) struct StoredLog {
    /// The revision of each row's first change, and the row's size.
    rows: VecDeque<(u64, usize)>,
    /// The revision of the last row's last change.
    latest: u64,
    bytes: usize,
    changes_max: usize,
    bytes_max: usize,
}

impl StoredLog {
    /// Starts empty, bounded by the limits.
    pub(super) fn new(limits: &Limits) -> Self {
        let (changes_max, bytes_max) = (limits.log_changes_max, limits.log_bytes_max);
        Self { rows: VecDeque::new(), latest: 0, bytes: 0, changes_max, bytes_max }
    }

    /// Reads the extent from the file.
    pub(super) fn read(&mut self, database: &Database) -> Result<(), redb::Error> {
        (self.rows, self.bytes) = (VecDeque::new(), 0);
        let transaction = database.begin_read()?;
        for row in transaction.open_table(CHANGES)?.iter()? {
            let (first, changes) = row?;
            self.push(first.value(), changes.value().len());
        }
        let revision = number(transaction.open_table(META)?.get(REVISION_ROW)?);
        self.set_latest(revision.ok_or_else(|| redb::Error::Corrupted("meta".to_owned()))?);
        Ok(())
    }

    /// Records the next row.
    pub(super) fn push(&mut self, first: u64, bytes: usize) {
        self.rows.push_back((first, bytes));
        self.bytes += bytes;
    }

    /// Records the revision of the last change.
    pub(super) fn set_latest(&mut self, latest: u64) {
        self.latest = latest;
    }

    /// Removes and returns the oldest row if the limits are met without it.
    pub(super) fn pop_excess(&mut self) -> Option<u64> {
        let (oldest, bytes) = *self.rows.front()?;
        let bytes_after = self.bytes - bytes;
        let changes_after =
            self.rows.get(1).map_or(0, |(first, _)| (self.latest + 1).saturating_sub(*first));
        let needed = usize::try_from(changes_after).is_ok_and(|after| after < self.changes_max)
            && bytes_after < self.bytes_max;
        if needed {
            return None;
        }
        self.rows.pop_front();
        self.bytes = bytes_after;
        Some(oldest)
    }
}
