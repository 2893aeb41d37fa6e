//! Static tokens: made for `token new`, and found by their digests.
//!
//! Invariant: the text of a token and its digest are in no `Debug`, error or log line. The policy
//! keeps digests alone.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write},
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header::AUTHORIZATION};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;

use super::{
    authentication::{Authentication, Unauthenticated, Via},
    principal::Principal,
};
use crate::unauthorized::CREDENTIAL_BYTES_MAX;

/// The text that every static token begins with.
pub(super) const TOKEN_PREFIX: &str = "waypost_";

/// A new static token. `Debug` shows nothing of it.
pub struct NewToken(String);

/// The system has no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system's random generator failed")]
pub struct NoRandomness;

impl NewToken {
    /// Makes a token of 256 bits from the system's random generator.
    ///
    /// # Errors
    /// The generator failed.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Returns the secret text, to be shown once.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the value of `sha256` in the policy: 64 hex digits.
    #[must_use]
    pub fn sha256(&self) -> String {
        sha256(self.0.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NewToken")
    }
}

/// The static tokens of a policy.
#[derive(Default)]
pub(super) struct StaticTokens {
    /// By SHA-256. The time of a lookup may depend on a digest's first bytes, which reveals no
    /// token: a caller finds another token with these bytes only by trying.
    by_sha256: HashMap<[u8; 32], StaticToken>,
    principals: HashSet<Principal>,
}

pub(super) struct StaticToken {
    pub(super) name: Box<str>,
    pub(super) principal: Principal,
    /// `None`: the token never expires.
    pub(super) expires: Option<SystemTime>,
}

impl StaticTokens {
    /// Adds a token; `false` if its digest is that of another one.
    pub(super) fn insert(&mut self, sha256: [u8; 32], token: StaticToken) -> bool {
        self.principals.insert(token.principal.clone());
        self.by_sha256.insert(sha256, token).is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_sha256.is_empty()
    }

    /// The principals of all tokens.
    pub(super) fn principals(&self) -> &HashSet<Principal> {
        &self.principals
    }

    pub(super) fn authenticate(
        &self,
        text: &str,
        now: SystemTime,
    ) -> Result<Authentication, Unauthenticated> {
        let token =
            self.by_sha256.get(&sha256(text.as_bytes())).ok_or(Unauthenticated::TokenInvalid)?;
        if token.expires.is_some_and(|expires| now >= expires) {
            return Err(Unauthenticated::CredentialsExpired);
        }
        Ok(Authentication {
            principal: token.principal.clone(),
            via: Via::Token,
            credential: Some(token.name.clone()),
            ends: token.expires,
        })
    }
}

/// Returns the bearer token of a request; `None` without `authorization`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Unauthenticated> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| Unauthenticated::TokenInvalid)?,
        (Some(_), Some(_)) => return Err(Unauthenticated::GivenTwice),
    };
    let (scheme, token) = value.split_once(' ').ok_or(Unauthenticated::TokenInvalid)?;
    let token = token.trim_start_matches(' ');
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    let has_form = (1..=CREDENTIAL_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_bearer && has_form { Ok(Some(token)) } else { Err(Unauthenticated::TokenInvalid) }
}

/// Computes a SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sha256
}
