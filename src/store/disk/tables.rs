//! The tables of the file and their keys.

use redb::{AccessGuard, TableDefinition};

/// The current format version. A server rejects files of newer versions.
///
/// 2: a row of the log may have several changes. A row of format 1 has one, which is valid in
/// format 2.
pub(super) const FORMAT: u64 = 2;
/// The oldest supported format version.
pub(super) const FORMAT_MIN: u64 = 1;

/// Single values, by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Instances with their leases, by slot, so that one batch writes few pages.
pub(super) const LEASES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("stays");
/// Rows of the log, by the revision of the first change; the others have consecutive revisions.
pub(super) const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");

// The rows of `META`.
pub(super) const FORMAT_ROW: &str = "format";
pub(super) const HISTORY_ROW: &str = "history";
pub(super) const REVISION_ROW: &str = "revision";
/// The number of batches ever committed.
pub(super) const BATCH_ROW: &str = "batch";

/// Decodes a number in a row of `META`.
pub(super) fn number(row: Option<AccessGuard<'_, &'static [u8]>>) -> Option<u64> {
    row?.value().try_into().ok().map(u64::from_be_bytes)
}
