//! Errors of an identity folder.

use std::path::PathBuf;

/// An error in an identity folder. Never contains parts of the key.
///
/// ```
/// use waypost_client::{Credentials, FolderError};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// let error = Credentials::folder(directory.path()).unwrap_err();
/// assert!(matches!(error, FolderError::Unreadable { .. }), "there is no ca.crt");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// A file is missing or can't be read.
    #[error("can't read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The certificates in `ca.crt` are not PEM, not certificates, or missing.
    #[error("the certificates in ca.crt can't be used: {reason}")]
    BadRoots {
        /// The reason.
        reason: String,
    },
    /// `tls.crt` or `tls.key` is invalid, or the two do not belong together.
    #[error("the certificate in tls.crt and its key can't be used: {reason}")]
    BadIdentity {
        /// The reason.
        reason: String,
    },
}
