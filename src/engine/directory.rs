//! The published services: lookup by name in O(1), sorted lists by namespace. Only the worker
//! writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;
use parking_lot::RwLock;
use waypost_auth::policy::Sight;

use crate::{
    model::{Name, ServiceKey},
    registry::{Service, ServiceNumber},
};

/// The directory of services.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Includes services without instances while the log has the removal of the last one: a watch
    /// finds that change through its service.
    services: DashMap<Arc<ServiceKey>, Arc<Service>>,
    /// The services with instances, by namespace.
    names: RwLock<BTreeMap<Name, BTreeSet<Name>>>,
    /// The number of these services.
    listed: AtomicUsize,
    /// The names of all services in the directory, by the numbers that leases have for them.
    keys: DashMap<ServiceNumber, Arc<ServiceKey>>,
}

/// A service and its instances, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSummary {
    /// The service.
    pub key: Arc<ServiceKey>,
    /// The number of instances.
    pub instances: usize,
    /// The number of instances that receive traffic.
    pub serving: usize,
}

impl Directory {
    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    pub(super) fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.services.get(key).map(|entry| Arc::clone(&entry))
    }

    /// Publishes the current state of a service.
    pub(super) fn put(&self, service: Arc<Service>) {
        let is_listed = !service.roster.is_empty();
        let key = Arc::clone(&service.key);
        let number = service.number;
        let before = self.services.insert(Arc::clone(&key), service);
        if before.as_ref().is_none_or(|before| before.number != number) {
            self.keys.insert(number, Arc::clone(&key));
        }
        let was_listed = before.is_some_and(|before| !before.roster.is_empty());
        match (was_listed, is_listed) {
            (false, true) => self.list(&key),
            (true, false) => self.unlist(&key),
            _ => {}
        }
    }

    /// Removes a service without instances.
    pub(super) fn forget(&self, key: &ServiceKey) {
        if let Some((_, service)) = self.services.remove(key) {
            self.keys.remove(&service.number);
        }
    }

    /// Returns the name of the service with a number.
    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    pub(super) fn key(&self, number: ServiceNumber) -> Option<Arc<ServiceKey>> {
        self.keys.get(&number).map(|key| Arc::clone(&key))
    }

    fn list(&self, key: &ServiceKey) {
        let mut names = self.names.write();
        names.entry(key.namespace.clone()).or_default().insert(key.service.clone());
        self.listed.fetch_add(1, Ordering::Relaxed);
    }

    fn unlist(&self, key: &ServiceKey) {
        let mut names = self.names.write();
        if let Some(services) = names.get_mut(&key.namespace) {
            services.remove(&key.service);
            self.listed.fetch_sub(1, Ordering::Relaxed);
            if services.is_empty() {
                names.remove(&key.namespace);
            }
        }
    }

    /// Returns the number of services with instances.
    pub(super) fn services(&self) -> usize {
        self.listed.load(Ordering::Relaxed)
    }

    /// Returns the names of all services of a namespace with instances, sorted.
    pub(super) fn names(&self, namespace: &Name) -> Vec<Name> {
        let names = self.names.read();
        names.get(namespace).into_iter().flatten().cloned().collect()
    }

    /// Returns the services of at most `count` visible names of a namespace from after `after`, and
    /// the last of these names if there may be more. Omits a service whose last instance was
    /// removed meanwhile.
    pub(super) fn page(
        &self,
        namespace: &Name,
        sight: &Sight,
        after: Option<&Name>,
        count: usize,
    ) -> (Vec<ServiceSummary>, Option<Name>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names: Vec<Name> = match self.names.read().get(namespace) {
            Some(services) => {
                let following = services.range((from, Bound::Unbounded));
                following.filter(|name| sight.includes(name)).take(count).cloned().collect()
            }
            None => Vec::new(),
        };
        let last = names.last().filter(|_| names.len() == count).cloned();
        let summary = |service: Name| {
            let found = self.service(&ServiceKey { namespace: namespace.clone(), service })?;
            let roster = &found.roster;
            let (instances, serving) = (roster.len(), roster.serving());
            (instances > 0).then(|| ServiceSummary {
                key: Arc::clone(&found.key),
                instances,
                serving,
            })
        };
        (names.into_iter().filter_map(summary).collect(), last)
    }
}
