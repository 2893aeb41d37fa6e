//! What writes to the file, and stays in order when that fails.

use std::{
    io,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase};

use super::{
    backlog::Backlog,
    batch::{Batch, Undo},
    file::{self, Directory, Opener, unusable},
    image::DiskImage,
    load::{self, Fault},
    tables::{BATCH_ROW, META, number},
};
use crate::{
    model::Limits,
    registry::Transition,
    store::{Image, Loaded, StoreError},
};

/// The file, open for writing.
pub(super) struct Writer {
    path: PathBuf,
    open: Opener,
    /// `None` after an error.
    database: Option<Database>,
    /// The batches that were committed, ever.
    batch: u64,
    /// How to take back the batch whose commit failed.
    in_doubt: Option<Undo>,
    backlog: Backlog,
    /// Whether the disk had no room for the last batch.
    full: bool,
    /// Nobody else works with the directory for as long as this is here.
    _directory: Option<Directory>,
}

impl Writer {
    /// Opens a file that was begun before, and reads it.
    pub(super) fn open(
        open: Opener,
        path: PathBuf,
        directory: Option<Directory>,
        limits: &Limits,
    ) -> Result<(Self, Loaded), StoreError> {
        let database = open().map_err(|error| unusable(&path, file::explain(&error)))?;
        let mut backlog = Backlog::new(limits);
        let mut read = || load::load(&database.begin_read()?, &mut backlog);
        let (loaded, batch) = read().map_err(|fault: Fault| fault.into_error(&path))?;
        let writer = Self {
            path,
            open,
            database: Some(database),
            batch,
            in_doubt: None,
            backlog,
            full: false,
            _directory: directory,
        };
        Ok((writer, loaded))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// One durable commit of all or of nothing.
    pub(super) fn commit(&mut self, transitions: &[Transition]) -> Result<(), StoreError> {
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

    /// What is committed now.
    pub(super) fn image(&self) -> Result<Image, StoreError> {
        let Some(database) = &self.database else {
            return Err(StoreError::Unavailable(format!("{} is closed", self.path.display())));
        };
        let image = || DiskImage::begin(&database.begin_read()?, self.path.clone());
        Ok(Image::new(image().map_err(|fault: Fault| fault.into_error(&self.path))?))
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
            self.backlog.read(&database)?;
            self.database = Some(database);
        }
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn write(&mut self, transitions: &[Transition]) -> Result<(), redb::Error> {
        let number = self.batch + 1;
        let transaction = self.settle()?.begin_write()?;
        let mut undo = Undo::default();
        let mut batch = Batch::open(&transaction, &mut undo)?;
        for transition in transitions {
            batch.put(transition, &mut self.backlog)?;
        }
        batch.end(number)?;
        drop(batch);
        self.in_doubt = Some(undo);
        transaction.commit()?;
        self.in_doubt = None;
        self.batch = number;
        Ok(())
    }

    fn failure(&self, error: &redb::Error) -> StoreError {
        let message = format!("{}: {error}", self.path.display());
        if is_full(error) { StoreError::Full(message) } else { StoreError::Unavailable(message) }
    }
}

fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull)
}

fn kept_batch(database: &Database) -> Result<Option<u64>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(number(meta.get(BATCH_ROW)?))
}
