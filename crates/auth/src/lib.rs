//! Who calls: by a token or by an API key. Nothing that callers say about themselves is believed, and
//! nothing of a token or a key may get into a reason, a log or a header that is passed on.

mod api_keys;
mod authenticator;
mod claims;
mod identity;
mod identity_headers;
mod keys;
mod tokens;
mod unauthorized;

pub use authenticator::Authenticator;
pub use identity::{Identity, Method, MissingScope};
pub use identity_headers::remove_forged;
pub use unauthorized::Unauthorized;

#[cfg(test)]
mod tests;
