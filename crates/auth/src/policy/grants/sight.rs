//! The services of one namespace that a caller may discover.
//!
//! Pure. Invariant: equal sights are equal values, whatever rules they come from.

use waypost_core::model::Name;

use crate::policy::pattern::NamePart;

/// The services of one namespace that a caller may discover. A lookup takes a binary search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The parts that no other one covers, sorted by their text, names before prefixes; `None`: all
    /// services. Parts that begin with a text follow each other, so the one that includes a name
    /// is among the last two that are not behind it.
    parts: Option<Box<[NamePart]>>,
}

impl Sight {
    /// Builds a sight of all services.
    #[must_use]
    pub fn whole() -> Self {
        Self { parts: None }
    }

    /// Builds a sight of the union of parts; `None` of no parts.
    pub(super) fn of(parts: impl IntoIterator<Item = NamePart>) -> Option<Self> {
        let mut sorted: Vec<NamePart> = parts.into_iter().collect();
        if sorted.contains(&NamePart::Any) {
            return Some(Self::whole());
        }
        let is_prefix = |part: &NamePart| matches!(part, NamePart::Prefix(_));
        sorted.sort_by(|one, other| {
            (one.literal(), is_prefix(one)).cmp(&(other.literal(), is_prefix(other)))
        });
        let mut parts: Vec<NamePart> = Vec::new();
        for part in sorted {
            if !parts.last().is_some_and(|last| last.covers(&part)) {
                parts.push(part);
            }
        }
        if parts.is_empty() { None } else { Some(Self { parts: Some(parts.into()) }) }
    }

    /// Returns whether every service of the namespace may be discovered.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.parts.is_none()
    }

    /// Returns whether a service of the namespace may be discovered.
    #[must_use]
    pub fn includes(&self, service: &Name) -> bool {
        let Some(parts) = &self.parts else { return true };
        let end = parts.partition_point(|part| part.literal() <= service.as_str());
        parts[..end].iter().rev().take(2).any(|part| part.includes(service))
    }
}
