//! Positions in the registry's history.

use std::fmt;

/// Counts changes: grows by one with each. 0 is the empty registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The position after one more change.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// Names the history that revisions count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryId(uuid::Uuid);

impl HistoryId {
    /// A history that nobody had before.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The id that a peer gave; `None` if it can't be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

/// A position in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The history.
    pub history: HistoryId,
    /// The position in it.
    pub revision: Revision,
}
