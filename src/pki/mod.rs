//! A certificate authority in a directory, as `waypost ca` makes it: the registry's certificate,
//! those of operators and workloads, and the policy that fits their names.
//!
//! From the bottom: `error`, `text_file` and `holder` (names), `details` (reads certificates),
//! `authority` (issues them), `policy` (its text), `files` (writes), `directory` (where all is).

mod authority;
mod details;
mod directory;
mod error;
mod files;
mod holder;
mod policy;
mod text_file;

#[cfg(test)]
mod tests;

pub use authority::{CertificateAuthority, IssuedIdentity};
pub use details::CertificateDetails;
pub use directory::{CertificateEntry, IssuedFolder, PkiDirectory};
pub use error::PkiError;
pub use holder::{CertificateHolder, InvalidTrustDomain, TrustDomain};
pub use policy::policy;

/// The file of an identity folder with the certificate, and with those of intermediate authorities.
pub const CERTIFICATE: &str = "tls.crt";
/// The file of an identity folder with the certificate's private key.
pub const KEY: &str = "tls.key";
/// The file of an identity folder, and of the authority, with the certificates that are trusted.
pub const AUTHORITIES: &str = "ca.crt";
