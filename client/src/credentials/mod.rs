//! The proofs of client and registry to each other: tokens (`token`, `token_file`), the identity
//! folder and TLS (`tls`), files that are replaced at run time (`content`), the user's `settings`,
//! and the credentials in force (`active`).

mod active;
mod content;
mod settings;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod token;
mod token_file;

#[cfg(feature = "tls")]
pub use self::tls::FolderError;
pub(crate) use self::{active::ActiveCredentials, content::POLL_INTERVAL};
pub use self::{
    settings::Credentials,
    token::{Token, TokenError, TokenSource},
    token_file::TokenFile,
};
