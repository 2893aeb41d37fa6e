//! The identity of a caller, and the scopes that it lacks.

use std::{collections::BTreeSet, fmt};

use http::HeaderValue;

use crate::unauthorized::challenge;

/// The identity of a caller. The same subject by two methods may be two callers.
///
/// ```
/// use waypost_auth::{Identity, AuthMethod};
///
/// let identity = Identity {
///     subject: "ci".to_owned(),
///     scopes: ["orders:read".to_owned()].into(),
///     method: AuthMethod::ApiKey,
/// };
/// assert_eq!(identity.missing_scope(&["orders:read"]), None);
/// let missing = identity.missing_scope(&["orders:read", "orders:write"]).unwrap();
/// assert_eq!(missing.to_string(), "the scope orders:write is missing");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The `sub` of the token or the `id` of the API key; never empty.
    pub subject: String,
    /// The permissions of the caller.
    pub scopes: BTreeSet<String>,
    /// The method by which the caller was identified.
    pub method: AuthMethod,
}

/// A method of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// A signed token.
    Jwt,
    /// An API key.
    ApiKey,
}

/// A scope that an identified caller lacks; the response is a 403.
///
/// ```
/// # use waypost_auth::{Identity, AuthMethod};
/// # let (subject, scopes) = ("ci".to_owned(), Default::default());
/// # let identity = Identity { subject, scopes, method: AuthMethod::Jwt };
/// let missing = identity.missing_scope(&["orders:read"]).unwrap();
/// assert_eq!(
///     missing.www_authenticate(),
///     "Bearer error=\"insufficient_scope\", \
///      error_description=\"the scope orders:read is missing\", scope=\"orders:read\"",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scope {missing} is missing")]
pub struct MissingScope {
    missing: String,
    required: Vec<String>,
}

impl Identity {
    /// Returns the first of the `required` scopes that the caller lacks; `None` if it has all.
    #[must_use]
    pub fn missing_scope<S: AsRef<str>>(&self, required: &[S]) -> Option<MissingScope> {
        let missing = required.iter().find(|scope| !self.scopes.contains(scope.as_ref()))?;
        Some(MissingScope {
            missing: missing.as_ref().to_owned(),
            required: required.iter().map(|scope| scope.as_ref().to_owned()).collect(),
        })
    }
}

impl MissingScope {
    /// Returns the value of `WWW-Authenticate` (RFC 6750, section 3), with all required scopes.
    #[must_use]
    pub fn www_authenticate(&self) -> HeaderValue {
        // Another text could end the quotes.
        if !self.required.iter().all(|scope| is_scope(scope)) {
            return HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
        }
        let scope = self.required.join(" ");
        challenge(&format!(
            "Bearer error=\"insufficient_scope\", error_description=\"{self}\", scope=\"{scope}\""
        ))
    }
}

impl AuthMethod {
    /// Returns the name in headers and logs: `jwt` or `api-key`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::ApiKey => "api-key",
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Returns whether a text is a scope-token (RFC 6749, section 3.3).
fn is_scope(text: &str) -> bool {
    let allowed = |byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_that_would_end_the_quotes_is_omitted() {
        let (subject, scopes) = ("ann".to_owned(), BTreeSet::new());
        let identity = Identity { subject, scopes, method: AuthMethod::Jwt };
        for scope in ["a\"b", "a b", "a\\", "", "\u{e9}", "a\n"] {
            let missing = identity.missing_scope(&[scope]).expect("it has none");
            assert_eq!(missing.www_authenticate(), "Bearer error=\"insufficient_scope\"");
        }
        assert_eq!(identity.missing_scope::<&str>(&[]), None);
    }
}
