//! Why somebody is not let in. The reasons are fixed: nothing of what was given can be in them.

use http::HeaderValue;
use thiserror::Error;

/// Why credentials don't hold; the answer is a 401. Each reason is fit for humans, logs and callers.
///
/// ```
/// use waypost_auth::Unauthorized;
///
/// assert_eq!(Unauthorized::Expired.to_string(), "the token has expired");
/// assert_eq!(
///     Unauthorized::Expired.www_authenticate(),
///     "Bearer error=\"invalid_token\", error_description=\"the token has expired\"",
/// );
/// assert_eq!(Unauthorized::NothingGiven.www_authenticate(), "Bearer");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Unauthorized {
    /// For who has to be known, and gives nothing.
    #[error("neither a token nor an API key was given")]
    NothingGiven,
    /// One of the headers is there more than once.
    #[error("credentials were given more than once")]
    GivenTwice,
    /// Both.
    #[error("a token and an API key were given, which may differ in who they are for")]
    TwoCredentials,
    /// `Authorization` has another scheme.
    #[error("the scheme of Authorization is not Bearer")]
    NotBearer,
    /// Over 8 KiB.
    #[error("the credentials are longer than 8 KiB")]
    TooLong,
    /// Not three parts with two dots, or nothing.
    #[error("the token is no signed JWT of three parts")]
    NoToken,
    /// The header of the token is no base64url of a JSON object, or has no algorithm.
    #[error("the header of the token can't be read")]
    UnreadableHeader,
    /// `crit`, `b64`, `cty`, `enc` or `zip`: it would not mean what it seems to.
    #[error("the header of the token asks for what is not supported")]
    Unsupported,
    /// `none`, one that is not allowed, or one that the key is not for.
    #[error("the algorithm of the token is not allowed")]
    AlgorithmRefused,
    /// No key has the `kid`.
    #[error("the key of the token is not known")]
    UnknownKey,
    /// It is of no key that it may be of.
    #[error("the signature of the token doesn't hold")]
    BadSignature,
    /// No base64url of a JSON object, or one of them of another type.
    #[error("the claims of the token can't be read")]
    UnreadableClaims,
    /// No `sub`, or an empty one.
    #[error("the token has no subject")]
    NoSubject,
    /// No `exp`.
    #[error("the token has no expiry")]
    NoExpiry,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is missing or another one.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// `aud` is missing or another one.
    #[error("the token is for another audience")]
    WrongAudience,
    /// No digest is the one of the API key.
    #[error("the API key is not known")]
    UnknownApiKey,
    /// Its time has passed.
    #[error("the API key has expired")]
    ApiKeyExpired,
}

impl Unauthorized {
    /// The value of `WWW-Authenticate` for the answer (RFC 6750, section 3).
    #[must_use]
    pub fn www_authenticate(self) -> HeaderValue {
        let error = match self {
            Self::NothingGiven => return HeaderValue::from_static("Bearer"),
            Self::GivenTwice | Self::TwoCredentials => "invalid_request",
            _ => "invalid_token",
        };
        challenge(&format!("Bearer error=\"{error}\", error_description=\"{self}\""))
    }
}

/// A challenge that no header can carry still asks for a token.
pub(super) fn challenge(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}
