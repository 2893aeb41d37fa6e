//! The callers of a gateway, as the table `[auth]` of its configuration identifies them.
//!
//! `authenticator` reads the table and identifies callers, by `tokens`, whose
//! keys are `token_keys`, and `api_keys`; `identity_headers` carry the `identity` to instances.
//! Pure, but for the files that the configuration names.

mod api_keys;
mod authenticator;
mod identity;
mod identity_headers;
mod token_keys;
mod tokens;

pub use authenticator::Authenticator;
pub use identity::{AuthMethod, Identity, MissingScope};
pub use identity_headers::remove_forged;

#[cfg(test)]
mod tests;
