//! A change to one instance, as watchers see it.

use std::sync::Arc;

use super::{Instance, Revision};

/// A change to one instance. Its revision is `modified` of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The kind of change.
    pub kind: ChangeKind,
    /// The instance after the change; for a removal, as last known.
    pub instance: Arc<Instance>,
}

impl Change {
    /// Returns the revision of the change.
    pub fn revision(&self) -> Revision {
        self.instance.modified
    }
}

/// The kind of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// A new instance.
    Added,
    /// Other content or another presence.
    Updated {
        /// The instance before.
        before: Arc<Instance>,
        /// True if another registration took the instance over.
        replaced: bool,
    },
    /// A removed instance.
    Removed(RemovalReason),
}

/// The reason of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// The instance deregistered.
    Deregistered,
    /// The lease was not renewed within its TTL.
    Expired,
    /// The stream that renewed the lease broke, and the grace passed.
    Disconnected,
    /// An operator removed the instance.
    Evicted,
}
