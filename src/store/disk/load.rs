//! Loads the state from the file, and verifies it.

use std::{path::Path, sync::Arc};

use redb::{ReadTransaction, ReadableTable};

use super::{
    file::{damaged, explain, unusable},
    stored_log::StoredLog,
    tables::{
        BATCH_ROW, CHANGES, FORMAT, FORMAT_MIN, FORMAT_ROW, HISTORY_ROW, LEASES, META,
        REVISION_ROW, number,
    },
};
use crate::{
    model::{Change, HistoryId, Revision},
    registry::RestoredState,
    store::{
        StoreError, StoredState,
        record::{ChangeRecord, KeyInterner, LeaseRecord},
    },
};

/// An upper bound that no registry reaches.
const REVISION_MAX: u64 = u64::MAX / 2;

/// The error of loading.
#[derive(Debug)]
pub(super) enum DiskLoadError {
    /// A table or row is damaged.
    Damaged(String),
    /// A newer version wrote the file, or the format is missing.
    Format(Option<u64>),
    Failed(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for DiskLoadError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl DiskLoadError {
    pub(super) fn into_error(self, path: &Path) -> StoreError {
        match self {
            Self::Damaged(place) => damaged(path, &place),
            Self::Failed(error) => unusable(path, explain(&error)),
            Self::Format(format) => {
                let format = format.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                unusable(
                    path,
                    format!(
                        "its format is {format}, this version supports up to {FORMAT}: start \
                         the version that wrote it"
                    ),
                )
            }
        }
    }
}

/// The content of the file.
pub(super) struct LoadedFile {
    pub(super) loaded: StoredState,
    /// The number of batches ever committed.
    pub(super) batch: u64,
    /// The format version.
    pub(super) format: u64,
}

/// Loads everything. Records the rows of changes in `stored_log`.
pub(super) fn load(
    transaction: &ReadTransaction,
    stored_log: &mut StoredLog,
) -> Result<LoadedFile, DiskLoadError> {
    let meta = transaction.open_table(META)?;
    let format = match number(meta.get(FORMAT_ROW)?) {
        Some(format) if (FORMAT_MIN..=FORMAT).contains(&format) => format,
        other => return Err(DiskLoadError::Format(other)),
    };
    let history = meta.get(HISTORY_ROW)?;
    let history = history.as_ref().and_then(|row| std::str::from_utf8(row.value()).ok());
    let history = history.and_then(HistoryId::parse);
    let (revision, batch) = (number(meta.get(REVISION_ROW)?), number(meta.get(BATCH_ROW)?));
    let revision = revision.filter(|revision| *revision <= REVISION_MAX);
    let (Some(history), Some(revision), Some(batch)) = (history, revision, batch) else {
        return Err(DiskLoadError::Damaged("meta".to_owned()));
    };
    let mut keys = KeyInterner::default();
    let mut leases = Vec::new();
    for row in transaction.open_table(LEASES)?.iter()? {
        let (slot, lease) = row?;
        match LeaseRecord::read(lease.value(), &mut keys) {
            Ok(lease) if lease.lease.slot() == slot.value() => leases.push(lease),
            _ => return Err(DiskLoadError::Damaged(format!("stays/{}", slot.value()))),
        }
    }
    let changes = changes(transaction, &mut keys, revision, stored_log)?;
    let restored = RestoredState { revision: Revision(revision), leases, changes };
    Ok(LoadedFile { loaded: StoredState { history, restored }, batch, format })
}

/// Loads the latest changes: consecutive revisions up to the given one.
fn changes(
    transaction: &ReadTransaction,
    keys: &mut KeyInterner,
    revision: u64,
    stored_log: &mut StoredLog,
) -> Result<Vec<Arc<Change>>, DiskLoadError> {
    let damaged = |at: u64| DiskLoadError::Damaged(format!("changes/{at}"));
    let mut changes = Vec::new();
    // The next expected revision.
    let mut next = None;
    for row in transaction.open_table(CHANGES)?.iter()? {
        let (first, row) = row?;
        let first = first.value();
        // The first change of a history has revision 1.
        if !(1..=revision).contains(&first) || next.is_some_and(|next| next != first) {
            return Err(damaged(next.unwrap_or(first)));
        }
        stored_log.push(first, row.value().len());
        let row = ChangeRecord::read(row.value(), keys).map_err(|_| damaged(first))?;
        for (at, change) in (first..).zip(row) {
            if change.revision().0 != at || at > revision {
                return Err(damaged(at));
            }
            changes.push(Arc::new(change));
            next = Some(at + 1);
        }
    }
    stored_log.set_latest(revision);
    match next {
        Some(next) if next <= revision => Err(damaged(next)),
        _ => Ok(changes),
    }
}
