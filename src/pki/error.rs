//! The errors of an authority and of its directory.

use std::{io, path::PathBuf};

use thiserror::Error;

/// An operation on a certificate authority failed. Displayed in one line that names the file.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file of this name is there.
    #[error("{}: exists; --renew replaces certificates and keys, and keeps the authority", .0.display())]
    Exists(PathBuf),
    /// A file can't be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file has more bytes than any that the authority writes.
    #[error("{}: has over {bytes_max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bytes that are allowed.
        bytes_max: u64,
    },
    /// A file holds something else.
    #[error("{}: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The authority's own certificate has ended.
    #[error(
        "the certificate of the authority has expired: create a new authority in another directory"
    )]
    AuthorityExpired,
    /// The names make an identity that no peer accepts.
    #[error("the SPIFFE ID has {bytes} bytes, at most {bytes_max} are allowed: shorten the names")]
    IdTooLong {
        /// The bytes that it has.
        bytes: usize,
        /// The bytes that are allowed.
        bytes_max: usize,
    },
    /// The clock is before 1970, or so late that the certificate's end can't be written.
    #[error("the system's clock is out of range: set it")]
    Clock,
    /// The certificate can't be made.
    #[error("can't make the certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

impl PkiError {
    /// Returns the error of an operation on `path`.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    /// Returns the error of a file whose content is invalid.
    pub(super) fn invalid(path: impl Into<PathBuf>, reason: &'static str) -> Self {
        Self::Invalid { path: path.into(), reason }
    }
}
