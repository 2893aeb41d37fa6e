//! Patterns of services (`on`): `NAMESPACE/SERVICE`, each a literal that may end with one `*`,
//! `{namespace}` or `{service}`.
//!
//! Pure. Invariant: a capture ends its part. Otherwise two principals could be given one name:
//! `{namespace}-{service}` of `a-b` and `c`, and of `a` and `b-c`.

use thiserror::Error;
use waypost_core::model::Name;

use super::{Captures, NamePart, is_in_name};

/// A pattern of services, with places for captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct TargetPattern {
    pub(in crate::policy) namespace: NamePattern,
    pub(in crate::policy) service: NamePattern,
}

/// A pattern of names, with a place for a capture at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum NamePattern {
    Fixed(NamePart),
    /// The text, then the capture `{namespace}`.
    Namespace(Box<str>),
    /// The text, then the capture `{service}`.
    Service(Box<str>),
}

/// The text is not a pattern of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::policy) enum TargetError {
    #[error("must be NAMESPACE/SERVICE, such as shop/orders, shop/* or */*")]
    NotTwoParts,
    #[error(
        "must be letters, digits, '.', '_' and '-' that begin and end with a letter or digit, in \
         each part; a part may end with one *, {{namespace}} or {{service}}"
    )]
    InvalidPart,
}

impl TargetPattern {
    pub(in crate::policy) fn parse(text: &str) -> Result<Self, TargetError> {
        let (namespace, service) = text.split_once('/').ok_or(TargetError::NotTwoParts)?;
        if service.contains('/') {
            return Err(TargetError::NotTwoParts);
        }
        let part = |text| NamePattern::parse(text).ok_or(TargetError::InvalidPart);
        Ok(Self { namespace: part(namespace)?, service: part(service)? })
    }

    /// Fills the captures in; `None` if no name comes of it, so that the pattern allows nothing.
    pub(in crate::policy) fn fill(&self, captures: Captures<'_>) -> Option<(NamePart, NamePart)> {
        Some((self.namespace.fill(captures)?, self.service.fill(captures)?))
    }

    /// Returns the pattern `*/*`.
    pub(in crate::policy) fn everything() -> Self {
        let any = || NamePattern::Fixed(NamePart::Any);
        Self { namespace: any(), service: any() }
    }

    pub(in crate::policy) fn is_everything(&self) -> bool {
        *self == Self::everything()
    }

    pub(in crate::policy) fn needs_namespace(&self) -> bool {
        let parts = [&self.namespace, &self.service];
        parts.into_iter().any(|part| matches!(part, NamePattern::Namespace(_)))
    }

    pub(in crate::policy) fn needs_service(&self) -> bool {
        let parts = [&self.namespace, &self.service];
        parts.into_iter().any(|part| matches!(part, NamePattern::Service(_)))
    }
}

impl NamePattern {
    fn parse(text: &str) -> Option<Self> {
        let start = text.find(['*', '{', '}']).unwrap_or(text.len());
        let (literal, placeholder) = text.split_at(start);
        if placeholder.is_empty() {
            return literal.parse().ok().map(|name| Self::Fixed(NamePart::Exact(name)));
        }
        let begins_a_name = literal.starts_with(|first: char| first.is_ascii_alphanumeric())
            && literal.len() < Name::BYTES_MAX
            && literal.bytes().all(is_in_name);
        if !literal.is_empty() && !begins_a_name {
            return None;
        }
        match placeholder {
            "*" if literal.is_empty() => Some(Self::Fixed(NamePart::Any)),
            "*" => Some(Self::Fixed(NamePart::Prefix(literal.into()))),
            "{namespace}" => Some(Self::Namespace(literal.into())),
            "{service}" => Some(Self::Service(literal.into())),
            _ => None,
        }
    }

    fn fill(&self, captures: Captures<'_>) -> Option<NamePart> {
        let (literal, capture) = match self {
            Self::Fixed(part) => return Some(part.clone()),
            Self::Namespace(literal) => (literal, captures.namespace?),
            Self::Service(literal) => (literal, captures.service?),
        };
        let name = if literal.is_empty() {
            capture.parse()
        } else {
            format!("{literal}{capture}").parse()
        };
        name.ok().map(NamePart::Exact)
    }
}

/// Parses a pattern of names without captures, as limits have it.
pub(in crate::policy) fn name_part(text: &str) -> Result<NamePart, TargetError> {
    match NamePattern::parse(text) {
        Some(NamePattern::Fixed(part)) => Ok(part),
        _ => Err(TargetError::InvalidPart),
    }
}
