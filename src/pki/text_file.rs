//! A file of text that the authority reads. Its text may be secret: it has no `Debug`.

use std::{fs::File, io::Read, path::PathBuf};

use super::error::PkiError;

/// The greatest size of a file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// A file that was read.
pub(super) struct TextFile {
    path: PathBuf,
    pub(super) text: String,
}

impl TextFile {
    /// Reads a file of at most 1 MiB.
    pub(super) fn read(path: PathBuf) -> Result<Self, PkiError> {
        let mut text = String::new();
        let opened = File::open(&path).map_err(PkiError::file(&path))?;
        match opened.take(BYTES_MAX + 1).read_to_string(&mut text) {
            Ok(read) if read as u64 > BYTES_MAX => {
                Err(PkiError::TooLarge { path, bytes_max: BYTES_MAX })
            }
            Ok(_) => Ok(Self { path, text }),
            Err(error) => Err(PkiError::File { path, source: error }),
        }
    }

    /// Returns the error for its content.
    pub(super) fn invalid(&self, reason: &'static str) -> PkiError {
        PkiError::invalid(&self.path, reason)
    }
}
