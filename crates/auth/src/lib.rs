//! Identifies callers by signed tokens (JWT) and API keys.
//!
//! [`Authenticator`] reads its keys from the table `[auth]` of a configuration, identifies the
//! caller of a request, and replaces the caller's credentials by the identity. The modules below
//! it, from the top: `tokens` with `claims` and `keys`; `api_keys`; `identity_headers`;
//! `identity`; `unauthorized`.
//! Pure, but for the files that the configuration names: the caller passes the time in.
//!
//! Invariant: no part of a token or key appears in a reason, a log line, or a forwarded header.

mod api_keys;
mod authenticator;
mod claims;
mod identity;
mod identity_headers;
mod keys;
mod tokens;
mod unauthorized;

pub use authenticator::Authenticator;
pub use identity::{AuthMethod, Identity, MissingScope};
pub use identity_headers::remove_forged;
pub use unauthorized::Unauthorized;

#[cfg(test)]
mod tests;
