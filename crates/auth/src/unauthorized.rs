//! The reasons to reject credentials. Fixed texts: no part of the credentials can be in them.

use http::HeaderValue;
use thiserror::Error;

/// The greatest length of credentials, in bytes.
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 8 << 10;

/// The reason why credentials are rejected; the response is a 401. Safe for callers and logs.
///
/// ```
/// use waypost_auth::Unauthorized;
///
/// assert_eq!(Unauthorized::Expired.to_string(), "the token has expired");
/// assert_eq!(
///     Unauthorized::Expired.www_authenticate(),
///     "Bearer error=\"invalid_token\", error_description=\"the token has expired\"",
/// );
/// assert_eq!(Unauthorized::NoCredentials.www_authenticate(), "Bearer");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Unauthorized {
    /// An identity is required, and there are no credentials.
    #[error("neither a token nor an API key was given")]
    NoCredentials,
    /// One of the headers is repeated.
    #[error("credentials were given more than once")]
    GivenTwice,
    /// There is a token and an API key.
    #[error("a token and an API key were given, which may be of different callers")]
    TwoCredentials,
    /// `Authorization` has another scheme.
    #[error("the scheme of Authorization is not Bearer")]
    NotBearer,
    /// More than 8 KiB.
    #[error("the credentials are longer than 8 KiB")]
    TooLong,
    /// Not three parts separated by dots.
    #[error("the token is not a signed JWT of three parts")]
    MalformedToken,
    /// The token's header is not base64url of a JSON object, or has no algorithm.
    #[error("the token's header cannot be read")]
    UnreadableHeader,
    /// `crit`, `b64`, `cty`, `enc` or `zip`: they change the meaning of the token.
    #[error("the token's header has an unsupported field")]
    Unsupported,
    /// `none`, one that is not allowed, or not one of the key's.
    #[error("the token's algorithm is not allowed")]
    AlgorithmNotAllowed,
    /// No key has the token's `kid`.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// None of the possible keys made the signature.
    #[error("the token's signature is invalid")]
    BadSignature,
    /// Not base64url of a JSON object, or a claim has another type.
    #[error("the token's claims cannot be read")]
    UnreadableClaims,
    /// No `sub`, or an empty one.
    #[error("the token has no subject")]
    NoSubject,
    /// `sub` has a character that is not printable ASCII, and a name must be.
    #[error("the token's subject is not printable ASCII")]
    UnusableSubject,
    /// No `exp`.
    #[error("the token has no expiry")]
    NoExpiry,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not passed.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is missing, or not one of the configured.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// `aud` is missing, or not one of the configured.
    #[error("the token is for another audience")]
    WrongAudience,
    /// No configured digest is that of the API key.
    #[error("the API key is unknown")]
    UnknownApiKey,
    /// `expires` of the API key has passed.
    #[error("the API key has expired")]
    ApiKeyExpired,
}

impl Unauthorized {
    /// Returns the value of `WWW-Authenticate` (RFC 6750, section 3).
    #[must_use]
    pub fn www_authenticate(self) -> HeaderValue {
        let error = match self {
            Self::NoCredentials => return HeaderValue::from_static("Bearer"),
            Self::GivenTwice | Self::TwoCredentials => "invalid_request",
            _ => "invalid_token",
        };
        challenge(&format!("Bearer error=\"{error}\", error_description=\"{self}\""))
    }
}

/// Builds a challenge; a plain `Bearer` if a header cannot have the text.
pub(crate) fn challenge(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}
