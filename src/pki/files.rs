//! Files and folders of secrets: created for their owner alone, replaced whole.
//!
//! Invariant: no file is overwritten but by [`replace_identity`], and modes do not depend on the
//! umask.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::{TempDir, TempPath};

use super::{AUTHORITIES, CERTIFICATE, KEY, authority::IssuedIdentity, error::PkiError};

/// The mode of folders.
const FOLDER: u32 = 0o700;

/// The mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileMode {
    /// Readable by its owner alone.
    Secret,
    /// Readable by all who reach its folder.
    Public,
}

impl FileMode {
    fn bits(self) -> u32 {
        match self {
            Self::Secret => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Returns whether something of this name is there, a broken link included.
pub(super) fn exists(path: &Path) -> Result<bool, PkiError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PkiError::file(path)(error)),
    }
}

/// Creates a folder, unless one is there, and those above it.
pub(super) fn create_folders(path: &Path) -> Result<(), PkiError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        create_folders(above)?;
    }
    match create_folder(path) {
        // Another process was first.
        Err(PkiError::File { .. }) if path.is_dir() => Ok(()),
        created => created,
    }
}

/// Creates a folder.
pub(super) fn create_folder(path: &Path) -> Result<(), PkiError> {
    let created = DirBuilder::new().mode(FOLDER).create(path);
    // The umask may have removed bits of the owner.
    let set = created.and_then(|()| fs::set_permissions(path, Permissions::from_mode(FOLDER)));
    set.map_err(PkiError::file(path))
}

/// Creates a folder for files that are not complete yet. Removed on drop.
pub(super) fn create_staging(directory: &Path) -> Result<TempDir, PkiError> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".waypost-").permissions(Permissions::from_mode(FOLDER));
    let staging = builder.tempdir_in(directory).map_err(PkiError::file(directory))?;
    let set = fs::set_permissions(staging.path(), Permissions::from_mode(FOLDER));
    set.map_err(PkiError::file(directory))?;
    Ok(staging)
}

/// Creates a file and waits until it is on the disk.
pub(super) fn create_file(path: &Path, text: &str, mode: FileMode) -> Result<(), PkiError> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode.bits()).open(path)?;
        file.set_permissions(Permissions::from_mode(mode.bits()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(PkiError::file(path))
}

/// Creates a folder with the three files of an identity.
pub(super) fn create_identity(folder: &Path, files: &IssuedIdentity) -> Result<(), PkiError> {
    create_folder(folder)?;
    write_identity(folder, files)
}

fn write_identity(folder: &Path, files: &IssuedIdentity) -> Result<(), PkiError> {
    create_file(&folder.join(AUTHORITIES), &files.authorities, FileMode::Public)?;
    create_file(&folder.join(KEY), &files.key, FileMode::Secret)?;
    create_file(&folder.join(CERTIFICATE), &files.certificate, FileMode::Public)
}

/// Moves a file or folder to a name that is not taken.
pub(super) fn publish(from: PathBuf, to: &Path) -> Result<(), PkiError> {
    if exists(to)? {
        return Err(PkiError::Exists(to.to_owned()));
    }
    // A name that was taken meanwhile is refused by the system: a rename replaces no folder that
    // has files.
    let moved = if from.is_dir() {
        fs::rename(&from, to)
    } else {
        let persisted = TempPath::try_from_path(from).map(|file| file.persist_noclobber(to));
        persisted.and_then(|persisted| persisted.map_err(|error| error.error))
    };
    moved.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
            PkiError::Exists(to.to_owned())
        }
        _ => PkiError::file(to)(error),
    })
}

/// Replaces the three files of an identity in their folder, so that mounts of the folder show the
/// new ones.
///
/// All are on the disk before the first is renamed. Between the renames of key and certificate, a
/// reader finds two that do not fit for some microseconds: followers keep what they had, and read
/// again once the certificate, the last one, has changed.
pub(super) fn replace_identity(folder: &Path, files: &IssuedIdentity) -> Result<(), PkiError> {
    let staging = create_staging(folder)?;
    write_identity(staging.path(), files)?;
    for name in [AUTHORITIES, KEY, CERTIFICATE] {
        let path = folder.join(name);
        fs::rename(staging.path().join(name), &path).map_err(PkiError::file(&path))?;
    }
    sync_folder(folder)
}

/// Waits until the names in a folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), PkiError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(PkiError::file(folder))
}
