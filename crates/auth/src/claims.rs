//! What a token says, once its signature holds, and whether it holds now and here.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::Number;

use super::{Identity, Method, Unauthorized};

/// What is asked of claims.
#[derive(Default)]
pub(super) struct Terms {
    /// `None`: not asked.
    pub(super) issuers: Option<Vec<String>>,
    /// `None`: not asked.
    pub(super) audiences: Option<Vec<String>>,
    /// How far the clocks of issuer and gateway may be apart.
    pub(super) leeway: Duration,
}

/// The claims that matter here (RFC 7519, section 4.1; scopes: RFC 8693, section 4.2).
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    scope: Option<OneOrMany>,
    /// What `scope` is called by some issuers; it counts where there is no `scope`.
    scp: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The time since 1970, seldom with parts of a second.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Number")]
struct NumericDate(Duration);

impl Terms {
    /// Who calls, where the claims hold at `now`.
    pub(super) fn accept(&self, claims: Claims, now: SystemTime) -> Result<Identity, Unauthorized> {
        // A clock before 1970 is wrong: then everything has expired.
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
        Ok(Identity { subject, scopes, method: Method::Jwt })
    }
}

impl OneOrMany {
    fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }

    /// A text holds them with spaces between; those of a list are taken as they are.
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
        seconds.map(Self).ok_or("is no time since 1970")
    }
}
