//! Filters: they select instances by their zone, version and metadata.
//!
//! Pure.

use super::{Change, ChangeKind, Content, Metadata};

/// Every part that is not empty must match. An empty filter matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// One of these zones; empty: any.
    pub zones: Vec<String>,
    /// One of these versions; empty: any.
    pub versions: Vec<String>,
    /// Each of these entries.
    pub metadata: Metadata,
}

impl Filter {
    /// Returns whether the filter matches everything.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.versions.is_empty() && self.metadata.iter().next().is_none()
    }

    /// Returns whether the content matches.
    pub fn matches(&self, content: &Content) -> bool {
        let view = content.view();
        (self.zones.is_empty() || self.zones.iter().any(|wanted| wanted == view.zone))
            && (self.versions.is_empty()
                || self.versions.iter().any(|wanted| wanted == view.version))
            && self.metadata.iter().all(|(key, value)| view.value(key) == Some(value))
    }

    /// Returns how a change appears to a watch with this filter; `None` if it does not.
    pub fn visibility(&self, change: &Change) -> Option<Visibility> {
        if self.is_empty() {
            return Some(Visibility::Unchanged);
        }
        let matches = self.matches(&change.instance.content);
        match &change.kind {
            ChangeKind::Updated { before, .. } => match (self.matches(&before.content), matches) {
                (true, true) => Some(Visibility::Unchanged),
                (false, true) => Some(Visibility::Added),
                (true, false) => Some(Visibility::Removed),
                (false, false) => None,
            },
            ChangeKind::Added | ChangeKind::Removed(_) => matches.then_some(Visibility::Unchanged),
        }
    }
}

/// A change as it appears behind a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// The change itself.
    Unchanged,
    /// An update by which the instance came to match: an addition.
    Added,
    /// An update by which the instance no longer matches: a removal.
    Removed,
}
