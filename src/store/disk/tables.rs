//! What is in the file: its tables and the numbers in them.

use redb::{AccessGuard, TableDefinition};

/// The version of what is written here. A server refuses what a newer one wrote.
///
/// 2: a row of changes may have several. One of format 1 has one, and is a row of format 2 as well.
pub(super) const FORMAT: u64 = 2;
/// The oldest version that is read.
pub(super) const FORMAT_MIN: u64 = 1;

/// What is not in the other tables, by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// By the slot of the lease, so that one batch writes to few pages.
pub(super) const LEASES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("stays");
/// By the revision of a row's first change; the others follow one revision after the other.
pub(super) const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");

// The rows of `META`.
pub(super) const FORMAT_ROW: &str = "format";
pub(super) const HISTORY_ROW: &str = "history";
pub(super) const REVISION_ROW: &str = "revision";
/// How many batches were committed.
pub(super) const BATCH_ROW: &str = "batch";

/// A row of `META` that holds a number.
pub(super) fn number(row: Option<AccessGuard<'_, &'static [u8]>>) -> Option<u64> {
    row?.value().try_into().ok().map(u64::from_be_bytes)
}
