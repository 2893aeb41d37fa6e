//! Transitions: the effects of commands on identities.
//!
//! Pure.

use std::sync::Arc;

use crate::model::{Change, ChangeKind, Instance, LeaseId, LeaseTerms, RemovalReason};

/// The effect of a command on one identity. Stores commit it, and the registry absorbs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// A new identity with a new lease.
    Added {
        /// The instance.
        instance: Arc<Instance>,
        /// The lease.
        lease: LeaseId,
        /// The terms of the lease.
        terms: LeaseTerms,
    },
    /// A registered identity under a new lease.
    TakenOver {
        /// The instance.
        instance: Arc<Instance>,
        /// The new lease, in the slot of the old one.
        lease: LeaseId,
        /// The terms of the lease.
        terms: LeaseTerms,
        /// The instance before, if it changed. Otherwise watchers see nothing.
        before: Option<Arc<Instance>>,
    },
    /// Another content or presence.
    Updated {
        /// The instance.
        instance: Arc<Instance>,
        /// The slot of the lease.
        slot: u32,
        /// The instance before.
        before: Arc<Instance>,
    },
    /// A removed identity.
    Removed {
        /// The instance as last known, at the revision of the removal.
        instance: Arc<Instance>,
        /// The slot of the lease.
        slot: u32,
        /// The reason.
        reason: RemovalReason,
    },
}

impl Transition {
    /// Returns the change that watchers see, if any.
    pub fn change(&self) -> Option<Change> {
        let (kind, instance) = match self {
            Self::Added { instance, .. } => (ChangeKind::Added, instance),
            Self::TakenOver { before: None, .. } => return None,
            Self::TakenOver { instance, before: Some(before), .. } => {
                let replaced = before.content != instance.content;
                (ChangeKind::Updated { before: Arc::clone(before), replaced }, instance)
            }
            Self::Updated { instance, before, .. } => {
                (ChangeKind::Updated { before: Arc::clone(before), replaced: false }, instance)
            }
            Self::Removed { instance, reason, .. } => (ChangeKind::Removed(*reason), instance),
        };
        Some(Change { kind, instance: Arc::clone(instance) })
    }

    /// Returns the slot of the lease.
    pub fn slot(&self) -> u32 {
        match self {
            Self::Added { lease, .. } | Self::TakenOver { lease, .. } => lease.slot(),
            Self::Updated { slot, .. } | Self::Removed { slot, .. } => *slot,
        }
    }
}
