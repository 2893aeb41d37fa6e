//! The three files of an identity folder, as bytes.
//! Invariant: the bytes of one read are those of one state of the folder.

use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::invalid_identity::InvalidIdentity;

/// The greatest length of each file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Reads until two that follow each other are equal.
const READS_MAX: usize = 5;
/// The right of all users of the machine to read a file.
const READ_BY_OTHERS: u32 = 0o004;

/// The bytes of an identity folder. Equal for equal bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    pub(super) directory: PathBuf,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) authorities: Vec<u8>,
    pub(super) key_is_exposed: bool,
}

impl IdentityFiles {
    /// Reads `tls.crt`, `tls.key` and `ca.crt`. A folder that is replaced meanwhile is read again,
    /// so that no files of two states stand beside each other.
    ///
    /// # Errors
    /// All files that can't be read, or are over 1 MiB.
    pub fn read(directory: &Path) -> Result<Self, Vec<InvalidIdentity>> {
        let mut last = Self::read_once(directory);
        for _ in 1..READS_MAX {
            let again = Self::read_once(directory);
            if again == last {
                break;
            }
            last = again;
        }
        last
    }

    fn read_once(directory: &Path) -> Result<Self, Vec<InvalidIdentity>> {
        let mut errors = Vec::new();
        let mut file = |name: &str| {
            let (bytes, mode) = read_file(&directory.join(name)).unwrap_or_else(|error| {
                errors.push(error);
                (Vec::new(), 0)
            });
            (bytes, mode)
        };
        let ((certificate, _), (key, mode)) = (file("tls.crt"), file("tls.key"));
        let (authorities, _) = file("ca.crt");
        if !errors.is_empty() {
            return Err(errors);
        }
        let key_is_exposed = mode & READ_BY_OTHERS != 0;
        Ok(Self { directory: directory.into(), certificate, key, authorities, key_is_exposed })
    }
}

impl fmt::Debug for IdentityFiles {
    /// Leaves out the key, which must not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("IdentityFiles");
        debug.field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Returns the bytes and the mode of a file.
fn read_file(path: &Path) -> Result<(Vec<u8>, u32), InvalidIdentity> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    let unreadable = |error: std::io::Error| InvalidIdentity::Unreadable {
        path: path.into(),
        reason: error.to_string(),
    };
    let (bytes, mode) = read().map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(InvalidIdentity::TooLong { path: path.into(), max: FILE_BYTES_MAX });
    }
    Ok((bytes, mode))
}
