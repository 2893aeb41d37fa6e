//! Identifies callers by signed tokens (JWT) and API keys.
//!
//! [`Authenticator`] reads its keys from the table `[auth]` of a configuration, identifies the
//! caller of a request, and replaces the caller's credentials by the identity. [`policy`] has the
//! rights of a registry's callers, [`tls`] a program's identity folder, and [`certificate`] the
//! certificates of callers. The folders, from the top: `callers`, those of a gateway; `tls`;
//! `certificate`; `policy`; [`jwt`], signed tokens and their keys; and the reasons to reject
//! credentials, `unauthorized`.
//! Pure, but for the files that the configuration names: the caller passes the time in.
//!
//! Invariant: no part of a token or key appears in a reason, a log line, or a forwarded header.

mod callers;
pub mod certificate;
pub mod jwt;
pub mod policy;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
mod unauthorized;

pub use callers::{AuthMethod, Authenticator, Identity, MissingScope, remove_forged};
pub use unauthorized::Unauthorized;
