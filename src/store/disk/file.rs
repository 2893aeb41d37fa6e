//! The file in the directory: how it begins, and how it is opened.

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
    registry::Restored,
    store::{StoreError, record::LeaseRecord},
};

/// The store's file.
const FILE: &str = "registry.redb";
/// The end of its name while it is not whole.
const PARTIAL: &str = "redb.new";
/// Locked by whoever works with the directory.
const LOCK: &str = "lock";
/// Pages that are held in memory: enough for the places where a batch writes. The rest is read from what the
/// system keeps of the file, which costs no more that could be measured.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
/// After a disk was full it is written to again once there is so much room.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;

/// What the directory has to be.
const DIRECTORY: &str = "the data directory has to be a directory that can be written to";
const DAMAGED: &str = "it is damaged: restore a backup, or move it away to begin anew";

/// How the file is opened again after an error.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// The directory, locked.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    /// Unlocked with this value.
    _lock: File,
}

impl DataDirectory {
    /// Locks the directory, which is made if it is not there.
    pub(super) fn lock(path: &Path) -> Result<Self, StoreError> {
        let unusable = |error: io::Error| unusable(path, format!("{error}: {DIRECTORY}"));
        make(path).map_err(unusable)?;
        let lock = File::create(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(self::unusable(path, "another server works with it".to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Whether a store was begun here.
    pub(super) fn has_store(&self) -> Result<bool, StoreError> {
        has_store(&self.path)
    }

    /// Begins a history with what is given, in a file that appears as a whole.
    pub(super) fn begin(&self, restored: &Restored) -> Result<(), StoreError> {
        let file = self.file();
        let partial = file.with_extension(PARTIAL);
        let begin = || -> Result<(), redb::Error> {
            if fs::exists(&partial)? {
                fs::remove_file(&partial)?;
            }
            initialize(&Database::create(&partial)?, restored)?;
            fs::rename(&partial, &file)?;
            // The name is durable as well from here on.
            Ok(File::open(&self.path)?.sync_all()?)
        };
        begin().map_err(|error| {
            let _gone = fs::remove_file(&partial);
            unusable(&file, explain(&error))
        })
    }
}

/// Makes a directory, and those above it, whose names are durable from here on.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    make(above)?;
    match fs::create_dir(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    File::open(above)?.sync_all()
}

fn has_store(path: &Path) -> Result<bool, StoreError> {
    let file = path.join(FILE);
    fs::exists(&file).map_err(|error| unusable(&file, error.to_string()))
}

/// A directory in which a store was begun. Where there is none, nothing is left behind.
pub(super) fn expect_store(path: &Path) -> Result<(), StoreError> {
    if !path.is_dir() {
        return Err(unusable(path, "there is no such directory".to_owned()));
    }
    if !has_store(path)? {
        return Err(unusable(&path.join(FILE), "there is no store".to_owned()));
    }
    Ok(())
}

/// A directory in which something may begin: nothing is in it, or it is not there.
pub(super) fn expect_empty(path: &Path) -> Result<(), StoreError> {
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(path, error.to_string())),
    };
    // What is left of one that was not finished is no store.
    let leftover = [LOCK.into(), PathBuf::from(FILE).with_extension(PARTIAL)];
    for entry in entries {
        let entry = entry.map_err(|error| unusable(path, error.to_string()))?;
        if !leftover.contains(&entry.file_name().into()) {
            return Err(unusable(path, "it is not empty".to_owned()));
        }
    }
    Ok(())
}

/// Opens a file that was begun before.
pub(super) fn open(path: &Path) -> Result<Database, redb::Error> {
    // The store takes a file with nothing in it for a new one; here it was a full one.
    if fs::metadata(path)?.len() == 0 {
        return Err(redb::Error::Corrupted("it is empty".to_owned()));
    }
    Ok(builder().open(path)?)
}

/// How files are opened.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Begins a history.
pub(super) fn initialize(database: &Database, restored: &Restored) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(CHANGES)?;
        let mut stays = transaction.open_table(LEASES)?;
        for stay in &restored.stays {
            let record = LeaseRecord::from(stay).encode_to_vec();
            stays.insert(stay.lease.slot(), record.as_slice())?;
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

/// Errors where the disk of a file still is too full to try again.
pub(super) fn room(path: &Path) -> io::Result<()> {
    let disk = statvfs(path)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// What can't be used, and why.
pub(super) fn unusable(path: &Path, reason: String) -> StoreError {
    StoreError::Unusable { path: path.to_owned(), reason }
}

/// What can't be used because of something wrong at a place in it.
pub(super) fn damaged(path: &Path, place: &str) -> StoreError {
    unusable(path, format!("{DAMAGED} (at {place})"))
}

/// What to do about a file that can't be opened or read.
pub(super) fn explain(error: &redb::Error) -> String {
    match error {
        redb::Error::DatabaseAlreadyOpen => "another server works with it".to_owned(),
        redb::Error::Corrupted(what) => format!("{DAMAGED} ({what})"),
        // It ends in its first page, does not begin as it should, or is another program's.
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
