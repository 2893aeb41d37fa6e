//! Revisions, histories and cursors.
//!
//! Pure but for [`HistoryId::random`].

use std::fmt;

/// The number of a change. Grows by one with each; 0 is the empty registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Returns the revision of the next change.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The id of a history, within which revisions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryId(uuid::Uuid);

impl HistoryId {
    /// Makes the id of a new history.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// Parses an id from a peer; `None` if it is not a UUID.
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
    /// The revision within the history.
    pub revision: Revision,
}
