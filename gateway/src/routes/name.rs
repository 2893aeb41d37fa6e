//! Names of services and routes. A name that exists is one that the registry takes.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of a service, or of a route: 1 to 128 ASCII letters, digits, `.`, `_` and `-`, of which the
/// first and the last are letters or digits. Cheap to clone.
///
/// ```
/// use waypost_gateway::routes::Name;
///
/// assert_eq!("orders.v2".parse::<Name>()?.as_str(), "orders.v2");
/// assert!("-orders".parse::<Name>().is_err());
/// # Ok::<(), waypost_gateway::routes::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Text is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to 128 letters, digits, '.', '_' and '-', the first and the last of them a letter or a \
     digit"
)]
pub struct NameError;

impl Name {
    /// How long a name can be, in bytes.
    const BYTES_MAX: usize = 128;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let valid = bytes.len() <= Self::BYTES_MAX
            && outer(bytes.first())
            && outer(bytes.last())
            && text.bytes().all(inner);
        if valid { Ok(Self(text.into())) } else { Err(NameError) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_takes_is_a_name() {
        for name in ["a", "7", "orders", "Orders.v2", "a_b-c.d", "1--2", &"x".repeat(128)] {
            assert_eq!(name.parse::<Name>().map(|name| name.to_string()).as_deref(), Ok(name));
        }
    }

    #[test]
    fn nothing_else_is_a_name() {
        let long = "x".repeat(129);
        for text in ["", ".", "-a", "a-", "_a", "a.", "a b", "a/b", "a%20", "ü", "a\0b", "*", &long]
        {
            assert_eq!(text.parse::<Name>(), Err(NameError), "{text}");
        }
    }
}
