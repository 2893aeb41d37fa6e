//! Names that a rule allows: all, one, or those that begin with a text.
//!
//! Pure.

use std::fmt;

use waypost_core::model::Name;

/// The names that one part of a pattern allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum NamePart {
    /// Every name.
    Any,
    /// One name.
    Exact(Name),
    /// The names that begin with the text and are longer.
    Prefix(Box<str>),
}

impl NamePart {
    pub(in crate::policy) fn includes(&self, name: &Name) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => has_prefix(name.as_str(), prefix),
        }
    }

    /// Returns the text before the `*`.
    pub(in crate::policy) fn literal(&self) -> &str {
        match self {
            Self::Any => "",
            Self::Exact(name) => name.as_str(),
            Self::Prefix(prefix) => prefix,
        }
    }

    /// Returns whether the part allows every name of the other one.
    pub(in crate::policy) fn covers(&self, other: &Self) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(_) => self == other,
            Self::Prefix(prefix) => self == other || has_prefix(other.literal(), prefix),
        }
    }
}

/// Returns whether a text begins with the prefix, and has at least one more character.
fn has_prefix(text: &str, prefix: &str) -> bool {
    text.len() > prefix.len() && text.starts_with(prefix)
}

impl fmt::Display for NamePart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.literal())?;
        formatter.write_str(if matches!(self, Self::Exact(_)) { "" } else { "*" })
    }
}
