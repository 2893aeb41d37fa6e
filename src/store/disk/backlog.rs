//! How much of the change log is on disk: as many of the latest changes as the limits allow, so that
//! after a restart watches go on where they were.

use std::collections::VecDeque;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::tables::CHANGES;
use crate::model::Limits;

/// The sizes of the changes on disk.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The revision of the oldest one.
    oldest: u64,
    /// Theirs, one revision after the other.
    sizes: VecDeque<u32>,
    bytes: usize,
    changes_max: usize,
    bytes_max: usize,
}

impl Backlog {
    /// Nothing, which may become as much as the limits say.
    pub(super) fn new(limits: &Limits) -> Self {
        let (changes_max, bytes_max) = (limits.log_changes_max, limits.log_bytes_max);
        Self { oldest: 0, sizes: VecDeque::new(), bytes: 0, changes_max, bytes_max }
    }

    /// Looks what is there.
    pub(super) fn read(&mut self, database: &Database) -> Result<(), redb::Error> {
        (self.sizes, self.bytes) = (VecDeque::new(), 0);
        for row in database.begin_read()?.open_table(CHANGES)?.iter()? {
            let (revision, change) = row?;
            self.push(revision.value(), change.value().len());
        }
        Ok(())
    }

    /// Takes note of the next change.
    pub(super) fn push(&mut self, revision: u64, bytes: usize) {
        if self.sizes.is_empty() {
            self.oldest = revision;
        }
        self.sizes.push_back(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.bytes += bytes;
    }

    /// Forgets the oldest change if there are too many, and says which it is.
    pub(super) fn pop_excess(&mut self) -> Option<u64> {
        if self.sizes.len() <= self.changes_max && self.bytes <= self.bytes_max {
            return None;
        }
        self.bytes -= self.sizes.pop_front()? as usize;
        let oldest = self.oldest;
        self.oldest += 1;
        Some(oldest)
    }
}
