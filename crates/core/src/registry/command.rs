//! What the registry can be asked to do, and what it answers.

use std::sync::Arc;

use thiserror::Error;

use super::lease::Due;
use crate::model::{
    Content, Instance, InstanceId, LeaseId, LeaseTerms, Metadata, Name, Revision, ServiceKey,
    Status, Version,
};

/// Something to decide on.
#[derive(Debug)]
pub enum Command {
    /// Add an instance, or take over a live identity.
    Register {
        /// The service.
        service: ServiceKey,
        /// The instance's id.
        id: InstanceId,
        /// What it says of itself; boxed since the other commands are small.
        content: Content,
        /// How long its lease lives.
        terms: LeaseTerms,
    },
    /// Change what an instance says of itself.
    Update {
        /// Which instance.
        target: Target,
        /// What to change.
        patch: Patch,
    },
    /// Remove an instance.
    Deregister {
        /// Which instance.
        target: Target,
    },
    /// Draw the consequences for the instance whose lease was judged: it is removed, becomes a
    /// suspect, or is no longer one.
    Enforce(
        /// What [`super::Registry::take_due`] returned.
        Due,
    ),
    /// Remove suspects.
    Release {
        /// The namespace.
        namespace: Name,
        /// How many at most.
        count_max: usize,
    },
}

/// Names an instance.
#[derive(Debug, Clone)]
pub enum Target {
    /// By its lease: the instance's own doing.
    Lease(LeaseId),
    /// By its identity: an operator's doing.
    Identity(ServiceKey, InstanceId),
}

/// The parts of an instance's content to change.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// Whether it takes traffic.
    pub status: Option<Status>,
    /// Its share of traffic.
    pub weight: Option<u32>,
    /// Its metadata as a whole.
    pub metadata: Option<Metadata>,
    /// Its version.
    pub version: Option<Version>,
    /// Its zone; `Some(None)` takes it away.
    pub zone: Option<Option<Name>>,
}

impl Patch {
    /// The content with the changes made.
    pub fn apply(&self, content: &Content) -> Content {
        let mut changed = content.parts();
        if let Some(status) = self.status {
            changed.status = status;
        }
        if let Some(weight) = self.weight {
            changed.weight = weight;
        }
        if let Some(metadata) = &self.metadata {
            changed.metadata = metadata.clone();
        }
        if let Some(version) = &self.version {
            changed.version = version.clone();
        }
        if let Some(zone) = &self.zone {
            changed.zone = zone.clone();
        }
        Content::from(&changed)
    }
}

/// What a command does.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The instance is registered.
    Registered {
        /// The instance as it then stands.
        instance: Arc<Instance>,
        /// Its lease.
        lease: LeaseId,
        /// The position after it.
        revision: Revision,
    },
    /// The instance is as asked for.
    Updated {
        /// The instance as it then stands.
        instance: Arc<Instance>,
        /// The position after it.
        revision: Revision,
    },
    /// The instance is gone.
    Deregistered {
        /// The position after it.
        revision: Revision,
    },
    /// The due had its consequences, or the lease had ended otherwise.
    Enforced,
    /// Suspects are gone.
    Released {
        /// How many: fewer than asked for when there are no more.
        count: usize,
        /// The position after it.
        revision: Revision,
    },
}

/// Why a command does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No such identity.
    #[error("{service} has no instance {id:?}")]
    NoSuchInstance {
        /// The service.
        service: ServiceKey,
        /// The id.
        id: InstanceId,
    },
    /// The lease ended, or never was.
    #[error("lease {0} is not active: it expired, was replaced, or never existed")]
    NoSuchLease(LeaseId),
    /// The identity has been taken over under a newer lease.
    #[error("lease {0} is fenced off: its instance was registered again under a newer lease")]
    Fenced(LeaseId),
    /// There is no room.
    #[error("the registry is full: it holds {instances_max} instances")]
    Full {
        /// How many instances there may be.
        instances_max: usize,
    },
}
