//! The claims of a token whose signature is valid, and the conditions on them.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::Number;

use super::identity::{AuthMethod, Identity};
use crate::Unauthorized;

/// The conditions on claims.
#[derive(Default)]
pub(super) struct Terms {
    /// `None`: not checked.
    pub(super) issuers: Option<Vec<String>>,
    /// `None`: not checked.
    pub(super) audiences: Option<Vec<String>>,
    /// The allowed difference between the clocks of issuer and verifier.
    pub(super) leeway: Duration,
}

/// The claims that are checked or used (RFC 7519, section 4.1; scopes: RFC 8693, section 4.2).
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    scope: Option<OneOrMany>,
    /// The name of `scope` at some issuers; used without a `scope`.
    scp: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The time since 1970; some issuers send fractions of a second.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Number")]
struct NumericDate(Duration);

impl Terms {
    /// Returns the caller's identity, if the claims are valid at `now`.
    pub(super) fn accept(&self, claims: Claims, now: SystemTime) -> Result<Identity, Unauthorized> {
        // A clock before 1970 is wrong: every token counts as expired.
        let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX);
        let NumericDate(expiry) = claims.exp.ok_or(Unauthorized::NoExpiry)?;
        if now >= expiry.saturating_add(self.leeway) {
            return Err(Unauthorized::Expired);
        }
        if claims.nbf.is_some_and(|NumericDate(start)| now.saturating_add(self.leeway) < start) {
            return Err(Unauthorized::NotYetValid);
        }
        if let Some(issuers) = &self.issuers
            && !claims.iss.is_some_and(|issuer| issuers.contains(&issuer))
        {
            return Err(Unauthorized::WrongIssuer);
        }
        if let Some(audiences) = &self.audiences
            && !claims
                .aud
                .is_some_and(|aud| aud.texts().iter().any(|text| audiences.contains(text)))
        {
            return Err(Unauthorized::WrongAudience);
        }
        let subject = claims.sub.filter(|subject| !subject.is_empty());
        let subject = subject.ok_or(Unauthorized::NoSubject)?;
        let scopes = claims.scope.or(claims.scp).map(OneOrMany::scopes).unwrap_or_default();
        Ok(Identity { subject, scopes, method: AuthMethod::Jwt })
    }
}

impl OneOrMany {
    fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }

    /// Splits a text at spaces; returns the values of a list as they are.
    fn scopes(self) -> BTreeSet<String> {
        match self {
            Self::One(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
            Self::Many(texts) => texts.into_iter().filter(|text| !text.is_empty()).collect(),
        }
    }
}

impl TryFrom<Number> for NumericDate {
    type Error = &'static str;

    fn try_from(number: Number) -> Result<Self, Self::Error> {
        if let Some(seconds) = number.as_u64() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let seconds = number.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.map(Self).ok_or("is not a time since 1970")
    }
}
