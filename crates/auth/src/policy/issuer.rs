//! Issuers of signed tokens, whose callers are `ISSUER/SUB`.
//!
//! Pure: the caller passes the time and the keys in.

use std::{path::PathBuf, time::SystemTime};

use super::{
    authentication::{Authentication, Unauthenticated, Via},
    principal::Principal,
};
use crate::{
    Unauthorized,
    jwt::{LEEWAY, VerifiedToken, Verifier},
};

/// The greatest length of a `jti` that audit records have, in bytes.
const TOKEN_ID_BYTES_MAX: usize = 256;

/// An issuer of signed tokens (`[issuer.NAME]`).
pub(super) struct Issuer {
    pub(super) name: Box<str>,
    /// The `iss` of its tokens.
    pub(super) url: String,
    /// The file with its keys.
    pub(super) path: PathBuf,
    verifier: Verifier,
}

impl Issuer {
    /// Builds an issuer with the keys of a JWKS.
    ///
    /// # Errors
    /// The errors of the JWKS.
    pub(super) fn new(
        name: &str,
        url: String,
        audience: String,
        path: PathBuf,
        keys: &[u8],
    ) -> Result<Self, Vec<String>> {
        let verifier = Verifier::asymmetric_jwks(keys, url.clone(), audience)?;
        Ok(Self { name: name.into(), url, path, verifier })
    }

    fn authentication(&self, token: VerifiedToken) -> Result<Authentication, Unauthenticated> {
        let principal = Principal::parse(&format!("{}/{}", self.name, token.subject))
            .map_err(|_| Unauthenticated::TokenInvalid)?;
        let is_short = |id: &String| {
            id.len() <= TOKEN_ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        Ok(Authentication {
            principal,
            via: Via::Jwt,
            credential: token.id.filter(is_short).map(String::into_boxed_str),
            ends: Some(token.expires + LEEWAY),
        })
    }
}

/// Authenticates a caller by a signed token of one of the issuers.
pub(super) fn authenticate(
    issuers: &[Issuer],
    token: &str,
    now: SystemTime,
) -> Result<Authentication, Unauthenticated> {
    let mut refusal = Unauthenticated::TokenInvalid;
    for issuer in issuers {
        match issuer.verifier.verify(token, now) {
            Ok(token) => return issuer.authentication(token),
            Err(Unauthorized::Expired) => refusal = Unauthenticated::CredentialsExpired,
            Err(_) => {}
        }
    }
    Err(refusal)
}
