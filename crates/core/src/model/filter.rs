//! Chooses instances by what they say of themselves.

use super::{Content, Metadata};

/// All that is given must match. An empty filter matches everything.
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
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.versions.is_empty() && self.metadata.iter().next().is_none()
    }

    /// Whether the content matches.
    pub fn matches(&self, content: &Content) -> bool {
        let view = content.view();
        (self.zones.is_empty() || self.zones.iter().any(|wanted| wanted == view.zone))
            && (self.versions.is_empty()
                || self.versions.iter().any(|wanted| wanted == view.version))
            && self.metadata.iter().all(|(key, value)| view.value(key) == Some(value))
    }
}
