//! One change to one instance, as watchers see it.

use std::sync::Arc;

use super::{Instance, Revision};

/// One change to one instance. Its revision is its instance's `modified`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The instance after the change; of a removal as last known.
    pub instance: Arc<Instance>,
}

impl Change {
    /// The change's place in the history.
    pub fn revision(&self) -> Revision {
        self.instance.modified
    }
}

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content changed.
    Updated {
        /// The instance before.
        before: Arc<Instance>,
        /// Whether another registration took it over.
        replaced: bool,
    },
    /// It is gone.
    Removed(RemovalReason),
}

/// Why an instance is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// It deregistered itself.
    Deregistered,
    /// Its lease was not renewed.
    Expired,
    /// The stream that renewed its lease broke, and the grace passed.
    Disconnected,
    /// An operator decided so.
    Evicted,
}
