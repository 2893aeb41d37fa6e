//! The storage backend in a data directory: an embedded transactional store (redb), one durable
//! commit for each batch.
//!
//! Invariant: what was answered survives the end of the process at any point.

mod backup;
mod batch;
mod file;
mod load;
mod log_rows;
mod stored_log;
mod tables;

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase};

use self::{
    backup::DiskBackup,
    batch::Undo,
    file::{DataDirectory, Opener, unusable},
    load::DiskLoadError,
    stored_log::StoredLog,
    tables::{BATCH_ROW, FORMAT, FORMAT_ROW, META, REVISION_ROW, number},
};
use super::{Backup, BackupError, Store, StoreError, StoredState, backup::read_backup};
use crate::{
    model::{HistoryId, Limits, Revision},
    registry::{RestoredState, Transition},
};

/// The durable store in a data directory. Its operations block.
pub struct DiskStore {
    path: PathBuf,
    open: Opener,
    /// `None` after an error, until reopened.
    database: Option<Database>,
    /// The number of batches ever committed.
    batch: u64,
    /// The format version of the file, which a batch raises to the current one.
    format: u64,
    /// Reverts the batch whose commit failed with an unknown result.
    in_doubt: Option<Undo>,
    stored_log: StoredLog,
    /// Set if the disk was full at the last batch.
    full: bool,
    /// Locks the directory for as long as the store is open.
    _directory: Option<DataDirectory>,
}

/// The content of a data directory, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSummary {
    /// The history of its revisions.
    pub history: HistoryId,
    /// The latest revision.
    pub revision: Revision,
    /// The number of instances.
    pub instances: usize,
    /// The number of latest changes.
    pub changes: usize,
}

impl From<&StoredState> for StoreSummary {
    fn from(loaded: &StoredState) -> Self {
        Self {
            history: loaded.history,
            revision: loaded.restored.revision,
            instances: loaded.restored.leases.len(),
            changes: loaded.restored.changes.len(),
        }
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DiskStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DiskStore {
    /// Opens the store in a directory, or creates one if there is none, and loads its state.
    /// Blocks.
    ///
    /// Errors: [`StoreError::Unusable`] names the file and what to do.
    pub fn open(directory: &Path, limits: &Limits) -> Result<(Self, StoredState), StoreError> {
        let directory = DataDirectory::lock(directory)?;
        if !directory.has_store()? {
            directory.create_store(&RestoredState::default())?;
        }
        Self::open_locked(directory, limits)
    }

    fn open_locked(
        directory: DataDirectory,
        limits: &Limits,
    ) -> Result<(Self, StoredState), StoreError> {
        let path = directory.file();
        let file = path.clone();
        let open = Box::new(move || file::open(&file));
        Self::open_with(open, path, Some(directory), limits)
    }

    fn open_with(
        open: Opener,
        path: PathBuf,
        directory: Option<DataDirectory>,
        limits: &Limits,
    ) -> Result<(Self, StoredState), StoreError> {
        let database = open().map_err(|error| unusable(&path, file::explain(&error)))?;
        let mut stored_log = StoredLog::new(limits);
        let mut read = || load::load(&database.begin_read()?, &mut stored_log);
        let file = read().map_err(|fault: DiskLoadError| fault.into_error(&path))?;
        let store = Self {
            path,
            open,
            database: Some(database),
            batch: file.batch,
            format: file.format,
            in_doubt: None,
            stored_log,
            full: false,
            _directory: directory,
        };
        Ok((store, file.loaded))
    }

    /// Reads all of a directory that no server uses. Blocks.
    ///
    /// Errors: as for [`Self::open`], and if there is no store.
    pub fn check(directory: &Path) -> Result<StoreSummary, StoreError> {
        file::expect_store(directory)?;
        let locked = DataDirectory::lock(directory)?;
        let (_, loaded) = Self::open_locked(locked, &Limits::default())?;
        Ok(StoreSummary::from(&loaded))
    }

    /// Creates a store with a new history and the content of a backup, in a directory that is empty
    /// or absent. Blocks.
    ///
    /// Errors: the directory has other content or can't be written to; the backup is not complete.
    /// Then no store is created.
    pub fn restore(backup: impl Read, directory: &Path) -> Result<StoreSummary, BackupError> {
        file::expect_empty(directory)?;
        let restored = read_backup(backup)?;
        let locked = DataDirectory::lock(directory)?;
        // A server may have created a store here meanwhile.
        file::expect_empty(directory)?;
        let file = locked.file();
        let created = locked.create_store(&restored);
        let opened = created.and_then(|()| Self::open_locked(locked, &Limits::default()));
        let (_, loaded) = opened.inspect_err(|_| {
            // A server must not open a store that differs from the backup.
            let _removed = fs::remove_file(&file);
        })?;
        Ok(StoreSummary::from(&loaded))
    }

    /// Reopens the file after an error, and reverts the batch whose commit failed if the file has
    /// it nevertheless.
    fn reopen(&mut self) -> Result<&Database, redb::Error> {
        if self.database.is_none() {
            let database = (self.open)()?;
            if let Some(undo) = &self.in_doubt
                && stored_batch(&database)? == Some(self.batch + 1)
            {
                let transaction = database.begin_write()?;
                undo.apply(&transaction)?;
                transaction.commit()?;
            }
            self.in_doubt = None;
            self.stored_log.read(&database)?;
            self.database = Some(database);
        }
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn write(&mut self, transitions: &[Transition]) -> Result<(), redb::Error> {
        let number = self.batch + 1;
        let transaction = self.reopen()?.begin_write()?;
        let mut undo = Undo::default();
        let revision = batch::put(&transaction, transitions, &mut self.stored_log, &mut undo)?;
        let format = (self.format < FORMAT).then_some(FORMAT);
        let numbers = [(FORMAT_ROW, format), (BATCH_ROW, Some(number)), (REVISION_ROW, revision)];
        batch::put_numbers(&transaction, numbers, &mut undo)?;
        self.in_doubt = Some(undo);
        transaction.commit()?;
        self.in_doubt = None;
        (self.batch, self.format) = (number, FORMAT);
        Ok(())
    }

    fn failure(&self, error: &redb::Error) -> StoreError {
        let message = format!("{}: {error}", self.path.display());
        if is_full(error) { StoreError::Full(message) } else { StoreError::Unavailable(message) }
    }
}

impl Store for DiskStore {
    fn name(&self) -> &'static str {
        "disk"
    }

    /// Commits all or nothing, durably.
    async fn commit(&mut self, transitions: &[Transition]) -> Result<(), StoreError> {
        if self.full {
            // Nothing was written: the file stays open.
            file::check_free_space(&self.path).map_err(|error| self.failure(&error.into()))?;
        }
        let written = self.write(transitions);
        self.full = written.as_ref().is_err_and(is_full);
        written.map_err(|error| {
            // After an error the file must be reopened, and whether it has the batch is unknown:
            // find out at once.
            self.database = None;
            let _still_closed = self.reopen();
            self.failure(&error)
        })
    }

    fn backup(&self) -> Result<Backup, StoreError> {
        let Some(database) = &self.database else {
            return Err(StoreError::Unavailable(format!("{} is closed", self.path.display())));
        };
        let backup = || DiskBackup::start(&database.begin_read()?, self.path.clone());
        Ok(Backup::new(backup().map_err(|fault: DiskLoadError| fault.into_error(&self.path))?))
    }
}

fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull)
}

fn stored_batch(database: &Database) -> Result<Option<u64>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(number(meta.get(BATCH_ROW)?))
}

#[cfg(test)]
pub(super) mod tests;
