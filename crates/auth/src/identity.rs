//! Who calls, as the gateway has found it.

use std::{collections::BTreeSet, fmt};

use http::HeaderValue;

use super::unauthorized::challenge;

/// Who calls. Two methods may know the same subject and mean two callers.
///
/// ```
/// use waypost_auth::{Identity, Method};
///
/// let identity = Identity {
///     subject: "ci".to_owned(),
///     scopes: ["orders:read".to_owned()].into(),
///     method: Method::ApiKey,
/// };
/// assert_eq!(identity.missing_scope(&["orders:read"]), None);
/// let missing = identity.missing_scope(&["orders:read", "orders:write"]).unwrap();
/// assert_eq!(missing.to_string(), "the scope orders:write is missing");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The `sub` of the token or the `id` of the API key; never empty.
    pub subject: String,
    /// What the caller may do.
    pub scopes: BTreeSet<String>,
    /// How the caller is known.
    pub method: Method,
}

/// How a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// By a token.
    Jwt,
    /// By an API key.
    ApiKey,
}

/// What a known caller lacks; the answer is a 403.
///
/// ```
/// # use waypost_auth::{Identity, Method};
/// # let (subject, scopes) = ("ci".to_owned(), Default::default());
/// # let identity = Identity { subject, scopes, method: Method::Jwt };
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
    /// The first of the `required` scopes that the caller doesn't have; `None`: it has all.
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
    /// The value of `WWW-Authenticate` for the answer (RFC 6750, section 3); it names all that is required.
    #[must_use]
    pub fn www_authenticate(&self) -> HeaderValue {
        // One that is no scope would end the quotes.
        if !self.required.iter().all(|scope| is_scope(scope)) {
            return HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
        }
        let scope = self.required.join(" ");
        challenge(&format!(
            "Bearer error=\"insufficient_scope\", error_description=\"{self}\", scope=\"{scope}\""
        ))
    }
}

impl Method {
    /// Its name in headers and logs: `jwt` or `api-key`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::ApiKey => "api-key",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Whether it is a scope-token (RFC 6749, section 3.3).
fn is_scope(text: &str) -> bool {
    let allowed = |byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_that_would_end_the_quotes_is_not_named() {
        let (subject, scopes) = ("ann".to_owned(), BTreeSet::new());
        let identity = Identity { subject, scopes, method: Method::Jwt };
        for scope in ["a\"b", "a b", "a\\", "", "\u{e9}", "a\n"] {
            let missing = identity.missing_scope(&[scope]).expect("it has none");
            assert_eq!(missing.www_authenticate(), "Bearer error=\"insufficient_scope\"");
        }
        assert_eq!(identity.missing_scope::<&str>(&[]), None);
    }
}
