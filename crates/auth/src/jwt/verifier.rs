//! Verifies the tokens of one issuer, by its public keys.
//! Pure: the caller passes the time in.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    claims::Terms,
    jwk::{SetKind, read_set},
    keys::Keys,
};
use crate::{Unauthorized, unauthorized::CREDENTIAL_BYTES_MAX};

/// The greatest size of a set of keys, in bytes.
const SET_BYTES_MAX: usize = 1 << 20;

/// The allowed difference between the clocks of issuer and verifier.
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);

/// The last second that can be written as a date: the end of the year 9999.
const EXPIRY_MAX: Duration = Duration::from_secs(253_402_300_799);

/// Verifies the tokens (JWT) of one issuer for one audience.
///
/// A token needs `iss`, `aud`, `exp` and `sub`, and the signature of one of the keys by one of the
/// algorithms of that key. `exp` and `nbf` have a leeway of 30 s.
///
/// ```
/// use std::time::SystemTime;
/// use waypost_auth::{Unauthorized, jwt::Verifier};
///
/// let set = br#"{ "keys": [{
///     "kty": "OKP", "crv": "Ed25519", "kid": "a",
///     "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
/// }] }"#;
/// let issuer = "https://kubernetes.default.svc.cluster.local";
/// let verifier = Verifier::asymmetric_jwks(set, issuer.to_owned(), "waypost".to_owned()).unwrap();
/// let refused = verifier.verify("not.a.token", SystemTime::now());
/// assert_eq!(refused.unwrap_err(), Unauthorized::UnreadableHeader);
///
/// let secret = br#"{ "keys": [{ "kty": "oct", "k": "AAAA" }] }"#;
/// let errors = Verifier::asymmetric_jwks(secret, issuer.to_owned(), "waypost".to_owned());
/// assert_eq!(
///     errors.unwrap_err(),
///     ["keys[0]: is a symmetric key, and only public keys may be here"],
/// );
/// ```
pub struct Verifier {
    keys: Keys,
    terms: Terms,
}

/// A token that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// The `sub`: printable ASCII, never empty.
    pub subject: String,
    /// The `iss`.
    pub issuer: String,
    /// The `exp`, without the leeway. Before the year 10000.
    pub expires: SystemTime,
    /// The `jti`, where it is a text.
    pub id: Option<String>,
}

impl Verifier {
    /// Reads a JWKS: RSA of 2048 to 4096 bits, EC P-256 and P-384, OKP Ed25519. Ignores keys of
    /// other types and purposes.
    ///
    /// # Errors
    /// All errors of the set: no JSON, more than 1 MiB, no key or more than 64, two keys that a
    /// token could not distinguish, a symmetric or a private key, an invalid key.
    pub fn asymmetric_jwks(
        bytes: &[u8],
        issuer: String,
        audience: String,
    ) -> Result<Self, Vec<String>> {
        if bytes.len() > SET_BYTES_MAX {
            return Err(vec!["is larger than 1 MiB".to_owned()]);
        }
        let keys = read_set(bytes, SetKind::Public)?;
        let keys = Keys::new(keys).map_err(|error| vec![error])?;
        let (issuers, audiences) = (Some(vec![issuer]), Some(vec![audience]));
        Ok(Self { keys, terms: Terms { issuers, audiences, leeway: LEEWAY } })
    }

    /// Verifies a token at the time `now`.
    ///
    /// # Errors
    /// The token is not valid, for this reason.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<VerifiedToken, Unauthorized> {
        if token.len() > CREDENTIAL_BYTES_MAX {
            return Err(Unauthorized::TooLong);
        }
        let claims = self.terms.accept(self.keys.claims(token)?, now)?;
        // A later time cannot be stored or shown everywhere.
        let expires = UNIX_EPOCH.checked_add(claims.expiry).filter(|_| claims.expiry <= EXPIRY_MAX);
        let expires = expires.ok_or(Unauthorized::UnreadableClaims)?;
        if !claims.subject.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Unauthorized::UnusableSubject);
        }
        let issuer = claims.issuer.ok_or(Unauthorized::WrongIssuer)?;
        Ok(VerifiedToken { subject: claims.subject, issuer, expires, id: claims.id })
    }
}

impl fmt::Debug for Verifier {
    /// Omits the keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Verifier");
        debug.field("issuer", &self.terms.issuers).field("audience", &self.terms.audiences);
        debug.finish_non_exhaustive()
    }
}
