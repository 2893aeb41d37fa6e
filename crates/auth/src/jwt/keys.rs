//! The keys of which one has signed a token. Pure.
//! Invariant: there is at least one key, and at most [`KEYS_MAX`].

use super::{algorithm::Algorithm, claims::Claims, key::Key, token::SignedToken};
use crate::Unauthorized;

/// The greatest number of keys: a token without a key id is tried with each.
const KEYS_MAX: usize = 64;

/// Keys that verify tokens.
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// Errors: the number of keys, in words.
    pub(crate) fn new(keys: Vec<Key>) -> Result<Self, String> {
        match keys.len() {
            0 => Err("has no key for signatures".to_owned()),
            1..=KEYS_MAX => Ok(Self(keys)),
            count => Err(format!("there are {count} keys, at most {KEYS_MAX}")),
        }
    }

    /// Removes all but these algorithms from the keys, and the keys that have none left; `None`
    /// without a key.
    pub(crate) fn restricted(self, allowed: &[Algorithm]) -> Option<Self> {
        let Self(mut keys) = self;
        for key in &mut keys {
            key.algorithms.retain(|algorithm| allowed.contains(algorithm));
        }
        keys.retain(|key| !key.algorithms.is_empty());
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Returns the claims of a token that one of the keys has signed.
    pub(crate) fn claims(&self, token: &str) -> Result<Claims, Unauthorized> {
        let token = SignedToken::parse(token)?;
        self.verify(&token)?;
        token.claims()
    }

    /// Checks that one of the possible keys has signed the token.
    fn verify(&self, token: &SignedToken<'_>) -> Result<(), Unauthorized> {
        let algorithm: Algorithm =
            token.alg.parse().map_err(|()| Unauthorized::AlgorithmNotAllowed)?;
        // A token without a key id may be any key's.
        let named = |key: &&Key| token.kid.is_none() || token.kid == key.kid;
        if !self.0.iter().any(|key| named(&key)) {
            return Err(Unauthorized::UnknownKey);
        }
        let signature = token.signature();
        let mut reason = Unauthorized::AlgorithmNotAllowed;
        for key in self.0.iter().filter(named) {
            if !key.algorithms.contains(&algorithm) {
                continue;
            }
            if let Some(signature) = &signature
                && key.verifies(algorithm, token.message.as_bytes(), signature)
            {
                return Ok(());
            }
            reason = Unauthorized::BadSignature;
        }
        Err(reason)
    }
}
