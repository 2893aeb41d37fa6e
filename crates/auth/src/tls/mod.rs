//! TLS of the programs: the identity folder and its errors, the roots that verify callers, and the
//! provider of cryptography.
//!
//! From the top: `identity_folder`, read from `identity_files` with `invalid_identity`;
//! `client_roots`; `provider`.

mod client_roots;
mod identity_files;
mod identity_folder;
mod invalid_identity;
mod provider;

pub use client_roots::ClientRoots;
pub use identity_files::IdentityFiles;
pub use identity_folder::{ClientAuth, IdentityFolder};
pub use invalid_identity::InvalidIdentity;
pub use provider::provider;

#[cfg(test)]
mod tests;
