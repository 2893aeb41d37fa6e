//! Permits: proofs that a caller may do an act. The engine takes a permit with the act in it, so
//! that a handler can neither forget the decision nor act on something else.
//!
//! Invariant: only a [`Caller`](super::Caller) makes permits.

use std::{collections::HashSet, sync::Arc};

use waypost_auth::policy::Sight;

use super::{audit::AuditTrail, quota::WatchSlot};
use crate::model::{Name, ServiceKey};

/// The proof that a caller may do the act `A`.
#[derive(Debug)]
pub struct Permit<A> {
    act: A,
    /// Gets what the act did.
    trail: AuditTrail,
    /// Counts the watch that it opens.
    slot: Option<WatchSlot>,
}

/// Registering an instance of a service.
#[derive(Debug)]
pub struct RegisterService {
    pub(super) service: ServiceKey,
    /// The instances that the namespace may have.
    pub(super) instances_max: Option<usize>,
}

/// Changing or removing an instance of a service by its identity.
#[derive(Debug)]
pub struct OperateService(pub(super) ServiceKey);

/// Removing the instances that protection holds in a namespace.
#[derive(Debug)]
pub struct ReleaseNamespace(pub(super) Name);

/// Reading the instances of a service.
#[derive(Debug)]
pub struct DiscoverService(pub(super) ServiceKey);

/// Reading the names of the services of a namespace.
#[derive(Debug)]
pub struct ListNamespace {
    pub(super) namespace: Name,
    pub(super) sight: Sight,
}

/// Reading the status of the server.
#[derive(Debug)]
pub struct ReadStatus(pub(super) ());

/// Copying the store.
#[derive(Debug)]
pub struct CopyStore(pub(super) ());

/// The services that a watch covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchScope {
    /// The services of a namespace that the caller may discover.
    Namespace(Name, Sight),
    /// These services, which need not exist.
    Services(HashSet<Arc<ServiceKey>>),
}

impl<A> Permit<A> {
    pub(super) fn new(act: A, trail: AuditTrail) -> Self {
        Self { act, trail, slot: None }
    }

    /// Holds the slot of a watch.
    pub(super) fn holding(self, slot: Option<WatchSlot>) -> Self {
        Self { slot, ..self }
    }

    /// Returns the act.
    pub(crate) fn act(&self) -> &A {
        &self.act
    }

    /// Returns the act.
    pub(crate) fn into_act(self) -> A {
        self.act
    }

    /// Returns the act, and the way of its record.
    pub(crate) fn into_parts(self) -> (A, AuditTrail) {
        (self.act, self.trail)
    }
}

impl RegisterService {
    /// Returns the service, and the instances that its namespace may have.
    pub(crate) fn into_parts(self) -> (ServiceKey, Option<usize>) {
        (self.service, self.instances_max)
    }
}

impl Permit<WatchScope> {
    /// Returns the scope, and the slot of the watch.
    pub(crate) fn into_watch(self) -> (WatchScope, Option<WatchSlot>) {
        (self.act, self.slot)
    }
}

impl OperateService {
    pub(crate) fn into_service(self) -> ServiceKey {
        self.0
    }
}

impl ReleaseNamespace {
    pub(crate) fn into_namespace(self) -> Name {
        self.0
    }
}

impl DiscoverService {
    pub(crate) fn service(&self) -> &ServiceKey {
        &self.0
    }
}

impl ListNamespace {
    pub(crate) fn namespace(&self) -> &Name {
        &self.namespace
    }

    /// Returns which of the services the caller may discover.
    pub(crate) fn sight(&self) -> &Sight {
        &self.sight
    }
}

impl WatchScope {
    /// Returns whether the scope has the service.
    pub(crate) fn includes(&self, key: &ServiceKey) -> bool {
        match self {
            Self::Namespace(namespace, sight) => {
                key.namespace == *namespace && sight.includes(&key.service)
            }
            Self::Services(keys) => keys.contains(key),
        }
    }
}
