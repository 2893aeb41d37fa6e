//! Commands, their outcomes and refusals.
//!
//! Pure.

use std::sync::Arc;

use thiserror::Error;

use super::lease::Due;
use crate::model::{
    Content, Instance, InstanceId, LeaseId, LeaseTerms, Metadata, Name, Revision, ServiceKey,
    Status, Version,
};

/// A command that a plan decides on.
#[derive(Debug)]
pub enum Command {
    /// Adds an instance, or takes over an identity that has one.
    Register {
        /// The service.
        service: ServiceKey,
        /// The id of the instance.
        id: InstanceId,
        /// The declared part of the instance.
        content: Content,
        /// The terms of its lease.
        terms: LeaseTerms,
        /// The instances that the namespace may have; `None`: no limit of its own. A take-over adds
        /// none.
        instances_max: Option<usize>,
    },
    /// Changes the declared part of an instance.
    Update {
        /// The instance.
        target: Target,
        /// The parts to change.
        patch: Patch,
    },
    /// Removes an instance.
    Deregister {
        /// The instance.
        target: Target,
    },
    /// Removes the instance of an expired lease or makes it a suspect; confirms the instance of a
    /// renewed one.
    Enforce(
        /// A lease from [`super::Registry::take_due`].
        Due,
    ),
    /// Removes suspects.
    Release {
        /// The namespace.
        namespace: Name,
        /// The largest number of removals.
        count_max: usize,
    },
}

/// The instance that a command changes.
#[derive(Debug, Clone)]
pub enum Target {
    /// The instance of a lease: the request comes from the instance.
    Lease(LeaseId),
    /// The instance of an identity: the request comes from an operator.
    Identity(ServiceKey, InstanceId),
}

/// The parts of a content to change.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// The new status.
    pub status: Option<Status>,
    /// The new share of traffic.
    pub weight: Option<u32>,
    /// The new metadata, which replaces all entries.
    pub metadata: Option<Metadata>,
    /// The new version.
    pub version: Option<Version>,
    /// The new zone; `Some(None)` removes it.
    pub zone: Option<Option<Name>>,
}

impl Patch {
    /// Returns the content with the changes.
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

/// The effect of a command.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The instance is registered.
    Registered {
        /// The instance after the command.
        instance: Arc<Instance>,
        /// The lease.
        lease: LeaseId,
        /// The revision after the command.
        revision: Revision,
    },
    /// The instance has the requested content.
    Updated {
        /// The instance after the command.
        instance: Arc<Instance>,
        /// The revision after the command.
        revision: Revision,
    },
    /// The instance is removed.
    Deregistered {
        /// The instance before the command.
        instance: Arc<Instance>,
        /// The revision after the command.
        revision: Revision,
    },
    /// The due lease is handled, or it ended by an earlier command.
    Enforced,
    /// Suspects are removed.
    Released {
        /// The number of removals; less than requested if there are no more.
        count: usize,
        /// The revision after the command.
        revision: Revision,
    },
}

/// The reason why a command has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The identity has no instance.
    #[error("{service} has no instance {id:?}")]
    NoSuchInstance {
        /// The service.
        service: ServiceKey,
        /// The id.
        id: InstanceId,
    },
    /// The lease ended or never existed.
    #[error("lease {0} is not active: it expired, was replaced, or never existed")]
    NoSuchLease(LeaseId),
    /// The identity was taken over under a newer lease.
    #[error("lease {0} is fenced off: its instance was registered again under a newer lease")]
    Fenced(LeaseId),
    /// The namespace has no room for another instance.
    #[error("namespace {namespace} is full: it may have {instances_max} instances")]
    NamespaceFull {
        /// The namespace.
        namespace: Name,
        /// The limit.
        instances_max: usize,
    },
    /// The registry has no room for another instance.
    #[error("the registry is full: it holds {instances_max} instances")]
    Full {
        /// The limit.
        instances_max: usize,
    },
}
