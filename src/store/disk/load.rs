//! Reads what was kept.

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
    registry::Restored,
    store::{
        StoreError, StoredState,
        record::{ChangeRecord, KeyInterner, LeaseRecord},
    },
};

/// No registry lives long enough to get there.
const REVISION_MAX: u64 = u64::MAX / 2;

/// Why something can't be read.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The place is not as it was written.
    Damaged(String),
    /// A newer version wrote it, or none.
    Format(Option<u64>),
    Failed(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl LoadError {
    pub(super) fn into_error(self, path: &Path) -> StoreError {
        match self {
            Self::Damaged(place) => damaged(path, &place),
            Self::Failed(error) => unusable(path, explain(&error)),
            Self::Format(format) => {
                let format = format.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                unusable(
                    path,
                    format!(
                        "its format is {format}, and this version knows {FORMAT}: start the \
                         version that wrote it"
                    ),
                )
            }
        }
    }
}

/// Everything that was kept.
pub(super) struct LoadedFile {
    pub(super) loaded: StoredState,
    /// The batches that were committed, ever.
    pub(super) batch: u64,
    /// The version of what was written.
    pub(super) format: u64,
}

/// Reads everything. The log takes note of the changes.
pub(super) fn load(
    transaction: &ReadTransaction,
    stored_log: &mut StoredLog,
) -> Result<LoadedFile, LoadError> {
    let meta = transaction.open_table(META)?;
    let format = match number(meta.get(FORMAT_ROW)?) {
        Some(format) if (FORMAT_MIN..=FORMAT).contains(&format) => format,
        other => return Err(LoadError::Format(other)),
    };
    let history = meta.get(HISTORY_ROW)?;
    let history = history.as_ref().and_then(|row| std::str::from_utf8(row.value()).ok());
    let history = history.and_then(HistoryId::parse);
    let (revision, batch) = (number(meta.get(REVISION_ROW)?), number(meta.get(BATCH_ROW)?));
    let revision = revision.filter(|revision| *revision <= REVISION_MAX);
    let (Some(history), Some(revision), Some(batch)) = (history, revision, batch) else {
        return Err(LoadError::Damaged("meta".to_owned()));
    };
    let mut keys = KeyInterner::default();
    let mut stays = Vec::new();
    for row in transaction.open_table(LEASES)?.iter()? {
        let (slot, stay) = row?;
        match LeaseRecord::read(stay.value(), &mut keys) {
            Ok(stay) if stay.lease.slot() == slot.value() => stays.push(stay),
            _ => return Err(LoadError::Damaged(format!("stays/{}", slot.value()))),
        }
    }
    let changes = changes(transaction, &mut keys, revision, stored_log)?;
    let restored = Restored { revision: Revision(revision), stays, changes };
    Ok(LoadedFile { loaded: StoredState { history, restored }, batch, format })
}

/// The latest changes, one revision after the other up to the given one.
fn changes(
    transaction: &ReadTransaction,
    keys: &mut KeyInterner,
    revision: u64,
    stored_log: &mut StoredLog,
) -> Result<Vec<Arc<Change>>, LoadError> {
    let damaged = |at: u64| LoadError::Damaged(format!("changes/{at}"));
    let mut changes = Vec::new();
    // The revision that has to come.
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
    stored_log.reach(revision);
    match next {
        Some(next) if next <= revision => Err(damaged(next)),
        _ => Ok(changes),
    }
}
