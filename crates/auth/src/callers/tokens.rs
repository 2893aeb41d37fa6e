//! Tokens (JWT) of callers: where a request has one, and whom it identifies, by `[auth.jwt]`.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header::AUTHORIZATION};
use waypost_config::{
    Invalid, Section,
    value::{Value, duration, invalid, nonempty_string, string},
};

use super::{
    identity::{AuthMethod, Identity},
    token_keys,
};
use crate::{
    Unauthorized,
    jwt::{algorithm::Algorithm, claims::Terms, keys::Keys},
    unauthorized::CREDENTIAL_BYTES_MAX,
};

const LEEWAY: Duration = Duration::from_secs(30);
const LEEWAY_MAX: Duration = Duration::from_secs(5 * 60);

/// The keys of tokens, and the conditions on their claims.
pub(super) struct Tokens {
    keys: Keys,
    terms: Terms,
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
        let keys = token_keys::read(section, directory)?;
        let keys = match allowed? {
            Some(allowed) => keys
                .restricted(&allowed)
                .ok_or_else(|| section.error("algorithms", "no key is for any of these"))?,
            None => keys,
        };
        let leeway = leeway?.unwrap_or(LEEWAY);
        Ok(Self { keys, terms: Terms { issuers: issuers?, audiences: audiences?, leeway } })
    }

    /// Returns the identity of a token's subject.
    pub(super) fn identify(&self, token: &str, now: SystemTime) -> Result<Identity, Unauthorized> {
        let claims = self.terms.accept(self.keys.claims(token)?, now)?;
        let (subject, scopes) = (claims.subject, claims.scopes);
        Ok(Identity { subject, scopes, method: AuthMethod::Jwt })
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
    name.parse().map_err(|()| invalid(&name, &"is not a known algorithm"))
}
