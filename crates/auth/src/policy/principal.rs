//! The name of a caller, whatever it proved it with.
//!
//! Pure. Invariant: a [`Principal`] is 1 to 2,048 bytes of printable ASCII, safe for logs.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use thiserror::Error;

/// The greatest length of a principal, in bytes.
pub(super) const PRINCIPAL_BYTES_MAX: usize = 2048;

/// The principal of callers without credentials.
pub(super) const ANONYMOUS: &str = "anonymous";

/// The name of a caller: `spiffe://DOMAIN/PATH`, `dns/NAME`, `token/NAME`, `ISSUER/SUB` or
/// `anonymous`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

/// The text is not a [`Principal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be 1 to {PRINCIPAL_BYTES_MAX} bytes of printable ASCII")]
pub struct InvalidPrincipal;

impl Principal {
    /// Parses a principal.
    ///
    /// # Errors
    /// The text is empty, longer than 2,048 bytes, or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidPrincipal> {
        let is_valid = (1..=PRINCIPAL_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if is_valid { Ok(Self(text.into())) } else { Err(InvalidPrincipal) }
    }

    /// Returns the principal of callers without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        static SHARED: LazyLock<Arc<str>> = LazyLock::new(|| ANONYMOUS.into());
        Self(Arc::clone(&SHARED))
    }

    /// Returns whether the caller gave no credentials.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.as_str() == ANONYMOUS
    }

    /// Returns the principal as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_ascii_is_a_principal() {
        let longest = "x".repeat(2048);
        for text in ["a", "anonymous", "spiffe://d/a", "k8s/a b", "~", &longest] {
            assert_eq!(Principal::parse(text).as_ref().map(Principal::as_str), Ok(text));
        }
        let long = "x".repeat(2049);
        for text in ["", "a\n", "a\tb", "\x7f", "ä", "a\0", "\u{202e}", &long] {
            assert_eq!(Principal::parse(text), Err(InvalidPrincipal), "{text:?}");
        }
        assert!(Principal::anonymous().is_anonymous());
        assert_eq!(Principal::parse("anonymous"), Ok(Principal::anonymous()));
    }
}
