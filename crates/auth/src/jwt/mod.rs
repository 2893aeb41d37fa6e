//! Signed tokens (JWT, RFC 7519, as compact JWS, RFC 7515), verified with ring.
//!
//! From the bottom: `algorithm`; `key`, one key; `pem`, the encodings of public keys;
//! `jwk`, sets of keys; `token`, the parts of a token; `keys`, which verify a token's signature;
//! `claims`, and the conditions on them; `verifier`, all of it for the tokens of one issuer.
//! Pure.
//!
//! Invariant: a token can only choose among the given keys, by their ids, and among the algorithms
//! of that key.

pub(crate) mod algorithm;
pub(crate) mod claims;
pub(crate) mod jwk;
pub(crate) mod key;
pub(crate) mod keys;
pub(crate) mod pem;
mod token;
mod verifier;

pub(crate) use verifier::LEEWAY;
pub use verifier::{VerifiedToken, Verifier};

#[cfg(test)]
mod tests;
