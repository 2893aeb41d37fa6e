//! Identifies the caller of a request, and replaces its credentials by its identity.

use std::{fmt, path::Path, time::SystemTime};

use http::{HeaderMap, header::AUTHORIZATION};
use waypost_config::{Invalid, Section, value::boolean};

use super::{
    api_keys::ApiKeys,
    identity::{AuthMethod, Identity},
    identity_headers::{self, remove_forged},
    tokens::{self, Tokens},
};
use crate::Unauthorized;

/// Identifies callers, as the table `[auth]` of a configuration sets it.
///
/// ```toml
/// [auth]
/// # Forwards the verified token to instances. Default: false.
/// forward_authorization = false
///
/// [auth.jwt]
/// # A set of keys (RFC 7517): RSA of 2048 to 4096 bits, EC P-256 and P-384, OKP Ed25519, oct.
/// jwks = "keys.json"
/// # Single keys, instead of the set or beside it: a secret, or the PEM of a public key.
/// keys = [
///     { kid = "a", alg = "HS256", secret_file = "a.secret" },
///     { alg = "RS256", public_key_file = "b.pem" },
/// ]
/// # One or a list; a token must have one of them. Default: not checked.
/// issuer = "https://id.example.com"
/// audience = "api"
/// # Default: all algorithms of the keys. Never `none`.
/// algorithms = ["RS256", "ES256", "EdDSA"]
/// # The allowed difference between the clocks, at most 5min.
/// leeway = "30s"
///
/// [auth.api_keys]
/// # Each of its [[keys]]: id = "ci", sha256 = "<64 hex digits>", scopes = ["orders:read"],
/// # expires = "2027-01-01T00:00:00Z". The last two are optional.
/// file = "api-keys.toml"
/// header = "x-api-key"
/// ```
///
/// One of `[auth.jwt]` and `[auth.api_keys]` is required. The header of a method that is not
/// configured is neither checked nor removed: it may be for the instance.
pub struct Authenticator {
    tokens: Option<Tokens>,
    api_keys: Option<ApiKeys>,
    token_forwarding: TokenForwarding,
}

/// The rule for the token that identified the caller, when a request goes to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenForwarding {
    Never,
    Always,
}

impl Authenticator {
    /// Reads the table; the files that it names are relative to `directory`. Blocks.
    ///
    /// # Errors
    /// A value is invalid; all errors are recorded.
    ///
    /// ```
    /// use std::path::Path;
    /// use waypost_auth::Authenticator;
    ///
    /// let text = "[auth]\nforward_authorisation = true";
    /// let errors = waypost_config::parse(text, |file| {
    ///     file.table("auth", |section| Authenticator::read(section, Path::new("/etc/gateway")))
    /// });
    /// assert_eq!(
    ///     errors.unwrap_err().to_string(),
    ///     "line 1: auth.jwt: is missing, and so is auth.api_keys: one of them is required\n\
    ///      line 2: auth.forward_authorisation: is no known key",
    /// );
    /// ```
    pub fn read(section: &mut Section<'_>, directory: &Path) -> Result<Self, Invalid> {
        let forwarded = section.read("forward_authorization", boolean);
        let tokens = section.table("jwt", |section| Tokens::read(section, directory));
        let api_keys = section.table("api_keys", |section| ApiKeys::read(section, directory));
        if !section.has("jwt") && !section.has("api_keys") {
            let other = "is missing, and so is auth.api_keys: one of them is required";
            return Err(section.error("jwt", other));
        }
        let token_forwarding = match forwarded? {
            Some(true) => TokenForwarding::Always,
            Some(false) | None => TokenForwarding::Never,
        };
        Ok(Self { tokens: tokens?, api_keys: api_keys?, token_forwarding })
    }

    /// Identifies the caller that sent these headers, at time `now`; `None` without credentials.
    ///
    /// # Errors
    /// The credentials are invalid, or there are two: instances could disagree on which count.
    ///
    /// ```
    /// # use std::path::Path;
    /// use std::time::SystemTime;
    /// use http::{HeaderMap, HeaderValue};
    /// use waypost_auth::{Authenticator, Unauthorized};
    ///
    /// # fn example(authenticator: &Authenticator, now: SystemTime) {
    /// let mut headers = HeaderMap::new();
    /// assert_eq!(authenticator.identify(&headers, now), Ok(None));
    /// headers.insert("authorization", HeaderValue::from_static("Bearer me"));
    /// assert_eq!(authenticator.identify(&headers, now), Err(Unauthorized::MalformedToken));
    /// # }
    /// ```
    pub fn identify(
        &self,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Option<Identity>, Unauthorized> {
        let token = self.tokens.as_ref().map(|_| tokens::given(headers)).transpose()?.flatten();
        let key = self.api_keys.as_ref().map(|keys| keys.given(headers)).transpose()?.flatten();
        match (token, key, &self.tokens, &self.api_keys) {
            (Some(_), Some(_), ..) => Err(Unauthorized::TwoCredentials),
            (Some(token), None, Some(tokens), _) => tokens.identify(token, now).map(Some),
            (None, Some(key), _, Some(keys)) => keys.identify(key, now).map(Some),
            _ => Ok(None),
        }
    }

    /// Replaces a caller's credentials in the headers of a request by its identity, before the
    /// request goes to an instance.
    ///
    /// Removes identity headers that the caller sent, the API key, and the token that identified
    /// the caller, unless `forward_authorization` is set. Inserts `x-waypost-subject`,
    /// `x-waypost-scopes` (separated by spaces; missing without scopes) and `x-waypost-auth` (`jwt`
    /// or `api-key`); none of them without an `identity`. Spaces, `%`, and bytes that are not ASCII
    /// are percent-encoded.
    ///
    /// Must be called for every request, also without an identity: instances rely on it. Must be
    /// called after the headers that `Connection` names were removed: a caller could name these.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue};
    /// use waypost_auth::{Authenticator, Identity, AuthMethod};
    ///
    /// # fn example(authenticator: &Authenticator) {
    /// let mut headers = HeaderMap::new();
    /// headers.insert("x_waypost-subject", HeaderValue::from_static("root"));
    /// let identity =
    ///     Identity { subject: "ann".into(), scopes: Default::default(), method: AuthMethod::Jwt };
    /// authenticator.replace_credentials(&mut headers, Some(&identity));
    /// assert_eq!(headers.len(), 2);
    /// assert_eq!(headers["x-waypost-subject"], "ann");
    /// # }
    /// ```
    pub fn replace_credentials(&self, headers: &mut HeaderMap, identity: Option<&Identity>) {
        remove_forged(headers);
        if let Some(keys) = &self.api_keys {
            headers.remove(keys.header());
        }
        let Some(identity) = identity else { return };
        if identity.method == AuthMethod::Jwt && self.token_forwarding == TokenForwarding::Never {
            headers.remove(AUTHORIZATION);
        }
        identity_headers::insert(headers, identity);
    }
}

impl fmt::Debug for Authenticator {
    /// Omits the keys, which must not appear in logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Authenticator");
        debug.field("jwt", &self.tokens.is_some()).field("api_keys", &self.api_keys.is_some());
        debug.field("token_forwarding", &self.token_forwarding).finish()
    }
}
