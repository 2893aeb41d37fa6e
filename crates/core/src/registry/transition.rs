//! The effect of a command on one identity.
//!
//! Pure.

use std::sync::Arc;

use crate::model::{Change, ChangeKind, Instance, LeaseId, LeaseTerms, RemovalReason};

/// What a command does to one identity: the unit that stores keep and the registry absorbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// A new identity with a new lease.
    Added {
        /// The instance.
        instance: Arc<Instance>,
        /// Its lease.
        lease: LeaseId,
        /// How long the lease lives.
        terms: LeaseTerms,
    },
    /// A live identity under a new lease.
    TakenOver {
        /// The instance.
        instance: Arc<Instance>,
        /// Its new lease, in the slot of the old one.
        lease: LeaseId,
        /// How long the lease lives.
        terms: LeaseTerms,
        /// The instance before, where it changed: only then watchers see something.
        before: Option<Arc<Instance>>,
    },
    /// Other content, or another presence.
    Updated {
        /// The instance.
        instance: Arc<Instance>,
        /// The slot of its lease.
        slot: u32,
        /// The instance before.
        before: Arc<Instance>,
    },
    /// The identity is gone.
    Removed {
        /// The instance as last known, at the revision of its removal.
        instance: Arc<Instance>,
        /// The slot of its lease.
        slot: u32,
        /// Why.
        reason: RemovalReason,
    },
}

impl Transition {
    /// What watchers see of it, if anything.
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

    /// Where the identity's lease lies.
    pub fn slot(&self) -> u32 {
        match self {
            Self::Added { lease, .. } | Self::TakenOver { lease, .. } => lease.slot(),
            Self::Updated { slot, .. } | Self::Removed { slot, .. } => *slot,
        }
    }
}
