//! The errors of an identity folder. They name files and positions, and contain no key.

use std::path::PathBuf;

use thiserror::Error;

/// An error of an identity folder.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidIdentity {
    /// The file is missing or can't be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// The file is longer than any chain or set of authorities.
    #[error("{}: is longer than {max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The greatest length.
        max: u64,
    },
    /// The file is not PEM.
    #[error("{}: is not PEM: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The file has no certificate.
    #[error("{}: has no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate is not well-formed, or can't be used.
    #[error("{}: certificate {number} cannot be used: {reason}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Its position, from 1.
        number: usize,
        /// The reason.
        reason: String,
    },
    /// The file has no private key, or only an encrypted one.
    #[error("{}: has no private key that is not encrypted", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The file has several private keys.
    #[error("{}: has {count} private keys, must have one", path.display())]
    SeveralKeys {
        /// The file.
        path: PathBuf,
        /// The number of keys.
        count: usize,
    },
    /// The private key is of a kind that is not supported, or malformed.
    #[error("{}: the private key cannot be used: {reason}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The private key belongs to another certificate.
    #[error("{}: is not the key of the first certificate of tls.crt", path.display())]
    KeyMismatch {
        /// The file.
        path: PathBuf,
    },
    /// The first certificate, or the last of the authorities, has ended.
    #[error("{}: the certificate has expired at {at}", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// The end, in RFC 3339.
        at: String,
    },
    /// The certificate is not valid yet.
    #[error("{}: the certificate is not valid before {at}", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// The beginning, in RFC 3339.
        at: String,
    },
}
