//! Keeps the registry in a directory, in an embedded transactional store: one durable commit for
//! each batch. What was answered survives the end of the process at any point.

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
    load::LoadError,
    stored_log::StoredLog,
    tables::{BATCH_ROW, FORMAT, FORMAT_ROW, META, REVISION_ROW, number},
};
use super::{Backup, BackupError, Store, StoreError, StoredState, backup::read_backup};
use crate::{
    model::{HistoryId, Limits, Revision},
    registry::{Restored, Transition},
};

/// The store that keeps everything in a directory. It blocks where it works.
pub struct DiskStore {
    path: PathBuf,
    open: Opener,
    /// `None` after an error.
    database: Option<Database>,
    /// The batches that were committed, ever.
    batch: u64,
    /// The version of what is in the file, which a batch raises to the present one.
    format: u64,
    /// How to take back the batch whose commit failed.
    in_doubt: Option<Undo>,
    stored_log: StoredLog,
    /// Whether the disk had no room for the last batch.
    full: bool,
    /// Nobody else works with the directory for as long as this is here.
    _directory: Option<DataDirectory>,
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSummary {
    /// The history that it belongs to.
    pub history: HistoryId,
    /// The position in it.
    pub revision: Revision,
    /// How many instances.
    pub instances: usize,
    /// How many of the latest changes.
    pub changes: usize,
}

impl From<&StoredState> for StoreSummary {
    fn from(loaded: &StoredState) -> Self {
        Self {
            history: loaded.history,
            revision: loaded.restored.revision,
            instances: loaded.restored.stays.len(),
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
    /// Opens the store in a directory, or begins one where there is none, and reads what it kept.
    /// Blocks.
    ///
    /// Errors: [`StoreError::Unusable`] names the file and says what to do.
    pub fn open(directory: &Path, limits: &Limits) -> Result<(Self, StoredState), StoreError> {
        let directory = DataDirectory::lock(directory)?;
        if !directory.has_store()? {
            directory.begin(&Restored::default())?;
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
        let found = read().map_err(|fault: LoadError| fault.into_error(&path))?;
        let store = Self {
            path,
            open,
            database: Some(database),
            batch: found.batch,
            format: found.format,
            in_doubt: None,
            stored_log,
            full: false,
            _directory: directory,
        };
        Ok((store, found.loaded))
    }

    /// Reads all of a directory that no server works with. Blocks.
    ///
    /// Errors: as for [`Self::open`], and where there is no store.
    pub fn check(directory: &Path) -> Result<StoreSummary, StoreError> {
        file::expect_store(directory)?;
        let locked = DataDirectory::lock(directory)?;
        let (_, loaded) = Self::open_locked(locked, &Limits::default())?;
        Ok(StoreSummary::from(&loaded))
    }

    /// Begins a history in a directory that is empty or not there, with everything that an image
    /// holds. Blocks.
    ///
    /// Errors: the directory holds something already or can't be written to; the image is no whole
    /// image. Then nothing was begun.
    pub fn restore(image: impl Read, directory: &Path) -> Result<StoreSummary, BackupError> {
        file::expect_empty(directory)?;
        let restored = read_backup(image)?;
        let locked = DataDirectory::lock(directory)?;
        // A server may have begun here meanwhile.
        file::expect_empty(directory)?;
        let file = locked.file();
        let begun = locked.begin(&restored);
        let opened = begun.and_then(|()| Self::open_locked(locked, &Limits::default()));
        let (_, loaded) = opened.inspect_err(|_| {
            // Nobody may take for a store what is not what was to be restored.
            let _gone = fs::remove_file(&file);
        })?;
        Ok(StoreSummary::from(&loaded))
    }

    /// Opens the file again after an error, and takes back the batch whose commit failed, if it got
    /// there all the same.
    fn settle(&mut self) -> Result<&Database, redb::Error> {
        if self.database.is_none() {
            let database = (self.open)()?;
            if let Some(undo) = &self.in_doubt
                && kept_batch(&database)? == Some(self.batch + 1)
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
        let transaction = self.settle()?.begin_write()?;
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

    /// One durable commit of all or of nothing.
    async fn commit(&mut self, transitions: &[Transition]) -> Result<(), StoreError> {
        if self.full {
            // Nothing was touched: the file stays open.
            file::room(&self.path).map_err(|error| self.failure(&error.into()))?;
        }
        let written = self.write(transitions);
        self.full = written.as_ref().is_err_and(is_full);
        written.map_err(|error| {
            // An error closes the file for good, and leaves open what is in it: best known at once.
            self.database = None;
            let _unsettled = self.settle();
            self.failure(&error)
        })
    }

    fn backup(&self) -> Result<Backup, StoreError> {
        let Some(database) = &self.database else {
            return Err(StoreError::Unavailable(format!("{} is closed", self.path.display())));
        };
        let backup = || DiskBackup::begin(&database.begin_read()?, self.path.clone());
        Ok(Backup::new(backup().map_err(|fault: LoadError| fault.into_error(&self.path))?))
    }
}

fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull)
}

fn kept_batch(database: &Database) -> Result<Option<u64>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(number(meta.get(BATCH_ROW)?))
}

#[cfg(test)]
pub(super) mod tests;
