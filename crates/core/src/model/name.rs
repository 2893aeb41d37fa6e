//! Names of namespaces, services, zones and ports.
//!
//! Pure. Invariant: a [`Name`] is well formed.

use std::{fmt, str::FromStr, sync::Arc};

use compact_str::CompactString;
use thiserror::Error;

/// A name of letters, digits, `.`, `_` and `-` that starts and ends with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(CompactString);

/// An invalid [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more bytes than allowed.
    #[error("has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// The bytes that it has.
        bytes: usize,
        /// The bytes that are allowed.
        bytes_max: usize,
    },
    /// The text has another form.
    #[error(
        "must be letters, digits, '.', '_' and '-', and begin and end with a letter or a digit"
    )]
    Malformed,
}

impl Name {
    /// The greatest length of any name, in bytes, whatever the limits of a server are. A longer one
    /// would not fit into the URLs by which a gateway routes.
    pub const BYTES_MAX: usize = 1024;

    /// Parses a name of at most `bytes_max` bytes, and [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return Err(NameError::Empty);
        };
        let bytes_max = bytes_max.min(Self::BYTES_MAX);
        if bytes.len() > bytes_max {
            return Err(NameError::TooLong { bytes: bytes.len(), bytes_max });
        }
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !first.is_ascii_alphanumeric()
            || !last.is_ascii_alphanumeric()
            || !bytes.iter().all(inner)
        {
            return Err(NameError::Malformed);
        }
        Ok(Self(CompactString::from(text)))
    }

    /// The namespace of requests that name none.
    pub fn default_namespace() -> Self {
        Self(CompactString::const_new("default"))
    }

    /// Makes one of a text that was checked before.
    pub(super) fn from_valid(text: &str) -> Self {
        Self(CompactString::from(text))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Parses a name of any length that a server can be configured to accept.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text, Self::BYTES_MAX)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

/// A service: its namespace and its name within it. Ordered by namespace first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: Name,
    /// The name within the namespace.
    pub service: Name,
}

impl ServiceKey {
    /// Makes a key that the instances of the service share.
    pub fn shared(namespace: Name, service: Name) -> Arc<Self> {
        Arc::new(Self { namespace, service })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_documented_form_are_valid() {
        for text in ["a", "7", "orders", "Orders-2", "a.b_c-d", "a--b", "0a"] {
            assert_eq!(Name::parse(text, 128).map(|name| name.to_string()), Ok(text.to_owned()));
        }
        assert!(Name::parse(&"x".repeat(128), 128).is_ok());
    }

    #[test]
    fn other_texts_are_invalid_with_a_reason() {
        assert_eq!(Name::parse("", 128), Err(NameError::Empty));
        let long = NameError::TooLong { bytes: 129, bytes_max: 128 };
        assert_eq!(Name::parse(&"x".repeat(129), 128), Err(long));
        let long = NameError::TooLong { bytes: 1025, bytes_max: 1024 };
        assert_eq!(Name::parse(&"x".repeat(1025), usize::MAX), Err(long));
        assert!("x".repeat(1024).parse::<Name>().is_ok());
        for text in ["-a", "a-", ".a", "a.", "_", "a b", "a/b", "ä", "a\0b", "a\n", "😀", " a"] {
            assert_eq!(Name::parse(text, 128), Err(NameError::Malformed), "{text:?}");
        }
    }
}
