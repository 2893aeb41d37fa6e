//! The claims of a token whose signature is valid, and the conditions on them. Pure.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::{Number, Value};

use crate::Unauthorized;

/// The conditions on claims.
#[derive(Default)]
pub(crate) struct Terms {
    /// `None`: not checked.
    pub(crate) issuers: Option<Vec<String>>,
    /// `None`: not checked.
    pub(crate) audiences: Option<Vec<String>>,
    /// The allowed difference between the clocks of issuer and verifier.
    pub(crate) leeway: Duration,
}

/// The claims that are checked or used (RFC 7519, section 4.1; scopes: RFC 8693, section 4.2).
#[derive(Deserialize)]
pub(crate) struct Claims {
    sub: Option<String>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    /// Of any type, since no decision depends on it.
    jti: Option<Value>,
    scope: Option<OneOrMany>,
    /// The name of `scope` at some issuers; used without a `scope`.
    scp: Option<OneOrMany>,
}

/// The claims of a token that is valid.
pub(crate) struct ValidClaims {
    /// Never empty.
    pub(crate) subject: String,
    pub(crate) issuer: Option<String>,
    /// The time since 1970.
    pub(crate) expiry: Duration,
    pub(crate) id: Option<String>,
    pub(crate) scopes: BTreeSet<String>,
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
    /// Returns the claims, if they are valid at `now`.
    pub(crate) fn accept(
        &self,
        claims: Claims,
        now: SystemTime,
    ) -> Result<ValidClaims, Unauthorized> {
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
            && !claims.iss.as_ref().is_some_and(|issuer| issuers.contains(issuer))
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
        let id = match claims.jti {
            Some(Value::String(id)) => Some(id),
            _ => None,
        };
        let scopes = claims.scope.or(claims.scp).map(OneOrMany::scopes).unwrap_or_default();
        Ok(ValidClaims { subject, issuer: claims.iss, expiry, id, scopes })
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
