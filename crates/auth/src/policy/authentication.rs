//! The result of judging one credential: a principal, or the reason of the refusal.
//!
//! Pure. Invariant: no part of a credential is in a reason, nor in `Debug` of a result.

use std::time::SystemTime;

use thiserror::Error;

use super::principal::Principal;

/// The kind of the credential that proved a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// A client certificate.
    Certificate,
    /// A static token of the policy.
    Token,
    /// A token that an issuer signed.
    Jwt,
    /// No credential.
    Anonymous,
}

impl Via {
    /// Returns the name in audit records and in `WhoAmI`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Anonymous => "anonymous",
        }
    }
}

/// A principal that a credential proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// The caller.
    pub principal: Principal,
    /// The kind of the credential.
    pub via: Via,
    /// The credential, for audit records: the first 16 hex digits of the certificate's SHA-256, the
    /// token's name, or the `jti`.
    pub credential: Option<Box<str>>,
    /// The end of the credential by the wall clock, leeway included; `None` for one without an end.
    pub ends: Option<SystemTime>,
}

impl Authentication {
    /// Returns the authentication of a caller without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        let principal = Principal::anonymous();
        Self { principal, via: Via::Anonymous, credential: None, ends: None }
    }
}

/// The reason why a caller is not known; the response is `UNAUTHENTICATED`. Fixed texts, safe for
/// callers and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Unauthenticated {
    /// The call needs credentials, and none were given.
    #[error("credentials are required")]
    NoCredentials,
    /// The certificate has no usable name.
    #[error("the client certificate has neither one SPIFFE ID nor one DNS name")]
    CertificateNamesNobody,
    /// The certificate's CA is not trusted, or not any more.
    #[error("the client certificate is not trusted")]
    CertificateNotTrusted,
    /// The token is malformed, unknown, badly signed, or for another audience.
    #[error("the token is invalid")]
    TokenInvalid,
    /// The certificate or token has expired.
    #[error("the credentials have expired")]
    CredentialsExpired,
    /// The policy revokes the principal or the certificate.
    #[error("the credentials are revoked")]
    Revoked,
    /// `authorization` is repeated.
    #[error("credentials were given more than once")]
    GivenTwice,
}

impl Unauthenticated {
    /// Returns the `reason` of `ErrorInfo`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoCredentials => "NO_CREDENTIALS",
            Self::CertificateNamesNobody => "CERTIFICATE_NAMES_NOBODY",
            Self::CertificateNotTrusted => "CERTIFICATE_NOT_TRUSTED",
            Self::TokenInvalid => "TOKEN_INVALID",
            Self::CredentialsExpired => "CREDENTIALS_EXPIRED",
            Self::Revoked => "REVOKED",
            Self::GivenTwice => "GIVEN_TWICE",
        }
    }
}
