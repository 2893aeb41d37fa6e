//! Permits: proofs that a caller may do an act. The engine takes a permit with the act in it, so
//! that a handler can neither forget the decision nor act on something else.
//!
//! Pure. Invariant: only a [`Caller`](super::Caller) makes permits.

use std::{collections::HashSet, sync::Arc};

use waypost_auth::policy::Sight;

use crate::model::{Name, ServiceKey};

/// The proof that a caller may do the act `A`.
#[derive(Debug)]
pub struct Permit<A>(A);

/// Registering an instance of a service.
#[derive(Debug)]
pub struct RegisterService(pub(super) ServiceKey);

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
    pub(super) fn new(act: A) -> Self {
        Self(act)
    }

    /// Returns the act.
    pub(crate) fn act(&self) -> &A {
        &self.0
    }

    /// Returns the act.
    pub(crate) fn into_act(self) -> A {
        self.0
    }
}

impl RegisterService {
    pub(crate) fn into_service(self) -> ServiceKey {
        self.0
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
