//! Signed tokens (JWT, RFC 7519, as compact JWS, RFC 7515).
//! Invariant: a token can only choose among the configured keys, by their ids, and among the
//! algorithms of that key.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, crypto};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use waypost_config::{
    Invalid, Section,
    value::{Value, duration, invalid, nonempty_string, string},
};

use super::{
    claims::{Claims, Terms},
    identity::Identity,
};
use crate::{
    Unauthorized,
    jwt::keys::{self, Key},
};

/// The greatest length of credentials, in bytes.
pub(super) const CREDENTIAL_BYTES_MAX: usize = 8 << 10;

const LEEWAY: Duration = Duration::from_secs(30);
const LEEWAY_MAX: Duration = Duration::from_secs(5 * 60);

/// The keys of tokens, and the conditions on their claims.
pub(super) struct Tokens {
    keys: Vec<Key>,
    terms: Terms,
}

/// The header of a token (RFC 7515, section 4.1). Ignores other sources of keys (`jwk`, `jku`,
/// `x5c`, `x5u`): the author of a token could name its own.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
    /// Set if the token contains another token.
    #[serde(default, deserialize_with = "present")]
    cty: bool,
    #[serde(default, deserialize_with = "present")]
    enc: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
}

/// Returns the token that the caller sent.
pub(super) fn given(headers: &HeaderMap) -> Result<Option<&str>, Unauthorized> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Err(Unauthorized::GivenTwice),
    };
    let (scheme, token) = match value.iter().position(|byte| *byte == b' ') {
        Some(end) => value.split_at(end),
        None => (value, [].as_slice()),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Unauthorized::NotBearer);
    }
    let token = token.trim_ascii_start();
    if token.len() > CREDENTIAL_BYTES_MAX {
        return Err(Unauthorized::TooLong);
    }
    str::from_utf8(token).map(Some).map_err(|_| Unauthorized::MalformedToken)
}

impl Tokens {
    /// Reads `[auth.jwt]` and its files.
    pub(super) fn read(section: &mut Section<'_>, directory: &Path) -> Result<Self, Invalid> {
        let issuers = section.one_or_more("issuer", nonempty_string);
        let audiences = section.one_or_more("audience", nonempty_string);
        let leeway = section.read("leeway", leeway);
        let allowed = section.one_or_more("algorithms", allowed_algorithm);
        let mut keys = keys::read(section, directory)?;
        if let Some(allowed) = allowed? {
            for key in &mut keys {
                key.algorithms.retain(|algorithm| allowed.contains(algorithm));
            }
            keys.retain(|key| !key.algorithms.is_empty());
            if keys.is_empty() {
                return Err(section.error("algorithms", "no key is for any of these"));
            }
        }
        let leeway = leeway?.unwrap_or(LEEWAY);
        Ok(Self { keys, terms: Terms { issuers: issuers?, audiences: audiences?, leeway } })
    }

    /// Returns the identity of a token's subject.
    pub(super) fn identify(&self, token: &str, now: SystemTime) -> Result<Identity, Unauthorized> {
        let (message, signature) = token.rsplit_once('.').ok_or(Unauthorized::MalformedToken)?;
        let (header, claims) = message.split_once('.').ok_or(Unauthorized::MalformedToken)?;
        if claims.contains('.') {
            return Err(Unauthorized::MalformedToken);
        }
        let header: Header = read(header).ok_or(Unauthorized::UnreadableHeader)?;
        if header.crit || header.b64 || header.cty || header.enc || header.zip {
            return Err(Unauthorized::Unsupported);
        }
        self.verify(&header, message, signature)?;
        let claims: Claims = read(claims).ok_or(Unauthorized::UnreadableClaims)?;
        self.terms.accept(claims, now)
    }

    /// Checks that one of the possible keys has signed the `message`.
    fn verify(&self, header: &Header, message: &str, signature: &str) -> Result<(), Unauthorized> {
        let algorithm: Algorithm =
            header.alg.parse().map_err(|_| Unauthorized::AlgorithmNotAllowed)?;
        // A token without a key id may be any key's; there are at most `keys::KEYS_MAX`.
        let named = |key: &&Key| header.kid.is_none() || header.kid == key.kid;
        if !self.keys.iter().any(|key| named(&key)) {
            return Err(Unauthorized::UnknownKey);
        }
        let mut reason = Unauthorized::AlgorithmNotAllowed;
        for key in self.keys.iter().filter(named) {
            if !key.algorithms.contains(&algorithm) {
                continue;
            }
            let verified = crypto::verify(signature, message.as_bytes(), &key.key, algorithm);
            if let Ok(true) = verified {
                return Ok(());
            }
            reason = Unauthorized::BadSignature;
        }
        Err(reason)
    }
}

fn leeway(value: Value<'_>) -> Result<Duration, String> {
    let leeway = duration(value)?;
    if leeway > LEEWAY_MAX {
        return Err(invalid(&string(value)?, &"must be 0s to 5min"));
    }
    Ok(leeway)
}

fn allowed_algorithm(value: Value<'_>) -> Result<Algorithm, String> {
    let name = string(value)?;
    if name.eq_ignore_ascii_case("none") {
        return Err(invalid(&name, &"would accept unsigned tokens"));
    }
    name.parse().map_err(|_| invalid(&name, &"is not a known algorithm"))
}

/// Decodes a part of a token: base64url of a JSON object. Rejects duplicate names, since readers
/// differ in which one they use.
fn read<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    // serde would read a list as the fields of the type, in their order.
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(&json).ok())?
}

/// Returns true for a field with any value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}
