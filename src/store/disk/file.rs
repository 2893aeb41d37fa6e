//! The data directory and its file: locking, creating, opening.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use prost::Message;
use redb::{Builder, Database};
use rustix::fs::statvfs;

use super::tables::{
    BATCH_ROW, CHANGES, FORMAT, FORMAT_ROW, HISTORY_ROW, LEASES, META, REVISION_ROW,
};
use crate::{
    model::{HistoryId, Revision},
    registry::RestoredState,
    store::{StoreError, record::LeaseRecord},
};

/// The store's file.
const FILE: &str = "registry.redb";
/// Its extension while it is incomplete.
const PARTIAL: &str = "redb.new";
/// The lock file of the directory.
const LOCK: &str = "lock";
/// The page cache: enough for the pages that a batch writes. All other pages come from the system's
/// cache, at no measurable extra cost.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
/// After the disk was full, writes continue once this much space is free.
const FREE_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// The remedy for a directory that can't be used.
const DIRECTORY: &str = "the data directory must be a writable directory";
const DAMAGED: &str = "it is damaged: restore a backup, or move it away to start empty";

/// Opens the file again after an error.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// The directory, locked.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    /// Unlocks on drop.
    _lock: File,
}

impl DataDirectory {
    /// Locks the directory, creating it if absent.
    pub(super) fn lock(path: &Path) -> Result<Self, StoreError> {
        let unusable = |error: io::Error| unusable(path, format!("{error}: {DIRECTORY}"));
        create_directory(path).map_err(unusable)?;
        let lock = File::create(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(self::unusable(path, "another server uses it".to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Returns whether the directory has a store.
    pub(super) fn has_store(&self) -> Result<bool, StoreError> {
        has_store(&self.path)
    }

    /// Creates a store with a new history and the given content. The file appears once it is
    /// complete.
    pub(super) fn create_store(&self, restored: &RestoredState) -> Result<(), StoreError> {
        let file = self.file();
        let partial = file.with_extension(PARTIAL);
        let create = || -> Result<(), redb::Error> {
            if fs::exists(&partial)? {
                fs::remove_file(&partial)?;
            }
            initialize(&Database::create(&partial)?, restored)?;
            fs::rename(&partial, &file)?;
            // Makes the name durable as well.
            Ok(File::open(&self.path)?.sync_all()?)
        };
        create().map_err(|error| {
            let _removed = fs::remove_file(&partial);
            unusable(&file, explain(&error))
        })
    }
}

/// Creates a directory and its parents, and makes their names durable.
fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    create_directory(above)?;
    match fs::create_dir(path) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?,
    }
    File::open(above)?.sync_all()
}

fn has_store(path: &Path) -> Result<bool, StoreError> {
    let file = path.join(FILE);
    fs::exists(&file).map_err(|error| unusable(&file, error.to_string()))
}

/// Requires that a directory has a store, without creating anything.
pub(super) fn expect_store(path: &Path) -> Result<(), StoreError> {
    if !path.is_dir() {
        return Err(unusable(path, "no such directory".to_owned()));
    }
    if !has_store(path)? {
        return Err(unusable(&path.join(FILE), "no store exists".to_owned()));
    }
    Ok(())
}

/// Requires that a directory is empty or absent.
pub(super) fn expect_empty(path: &Path) -> Result<(), StoreError> {
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(path, error.to_string())),
    };
    // Leftovers of an incomplete creation are allowed.
    let leftover = [LOCK.into(), PathBuf::from(FILE).with_extension(PARTIAL)];
    for entry in entries {
        let entry = entry.map_err(|error| unusable(path, error.to_string()))?;
        if !leftover.contains(&entry.file_name().into()) {
            return Err(unusable(path, "it is not empty".to_owned()));
        }
    }
    Ok(())
}

/// Opens an existing file.
pub(super) fn open(path: &Path) -> Result<Database, redb::Error> {
    // redb would take an empty file for a new one; here it had content.
    if fs::metadata(path)?.len() == 0 {
        return Err(redb::Error::Corrupted("it is empty".to_owned()));
    }
    Ok(builder().open(path)?)
}

/// Returns the options for opening a file.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Creates the tables, with a new history and the given content.
pub(super) fn initialize(database: &Database, restored: &RestoredState) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(CHANGES)?;
        let mut leases = transaction.open_table(LEASES)?;
        for lease in &restored.leases {
            let record = LeaseRecord::from(lease).encode_to_vec();
            leases.insert(lease.lease.slot(), record.as_slice())?;
        }
        let mut meta = transaction.open_table(META)?;
        let Revision(revision) = restored.revision;
        meta.insert(FORMAT_ROW, FORMAT.to_be_bytes().as_slice())?;
        meta.insert(HISTORY_ROW, HistoryId::random().to_string().as_bytes())?;
        meta.insert(BATCH_ROW, 0_u64.to_be_bytes().as_slice())?;
        meta.insert(REVISION_ROW, revision.to_be_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Returns an error while the disk of a file has too little free space to retry.
pub(super) fn check_free_space(path: &Path) -> io::Result<()> {
    let disk = statvfs(path)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// Builds the error of a file that can't be used.
pub(super) fn unusable(path: &Path, reason: String) -> StoreError {
    StoreError::Unusable { path: path.to_owned(), reason }
}

/// Builds the error of a file that is damaged at a table or row.
pub(super) fn damaged(path: &Path, place: &str) -> StoreError {
    unusable(path, format!("{DAMAGED} (at {place})"))
}

/// Returns the cause why a file can't be opened or read, and the remedy.
pub(super) fn explain(error: &redb::Error) -> String {
    match error {
        redb::Error::DatabaseAlreadyOpen => "another server uses it".to_owned(),
        redb::Error::Corrupted(what) => format!("{DAMAGED} ({what})"),
        // Truncated in its first page, an invalid header, or another program's file.
        redb::Error::Io(what)
            if matches!(what.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            format!("{DAMAGED} ({what})")
        }
        redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } => {
            format!("{DAMAGED} ({error})")
        }
        other => other.to_string(),
    }
}
