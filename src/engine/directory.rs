//! The published services: looked up by name in O(1), listed by namespace in order. Written by the
//! worker alone.

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

use crate::{
    model::{Name, ServiceKey},
    registry::Service,
};

#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Also services whose last instance is gone, for as long as the log holds its removal: a watch
    /// finds the way to it from here.
    services: DashMap<Arc<ServiceKey>, Arc<Service>>,
    /// The services that have instances.
    names: RwLock<BTreeMap<Name, BTreeSet<Name>>>,
    /// How many they are.
    listed: AtomicUsize,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSummary {
    /// The service.
    pub key: Arc<ServiceKey>,
    /// How many instances it has.
    pub instances: usize,
    /// How many of them take traffic.
    pub serving: usize,
}

impl Directory {
    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    pub(super) fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.services.get(key).map(|entry| Arc::clone(&entry))
    }

    /// Publishes a service as it now stands.
    pub(super) fn put(&self, service: Arc<Service>) {
        let lives = !service.roster.is_empty();
        let key = Arc::clone(&service.key);
        let before = self.services.insert(Arc::clone(&key), service);
        let lived = before.is_some_and(|before| !before.roster.is_empty());
        match (lived, lives) {
            (false, true) => self.list(&key),
            (true, false) => self.unlist(&key),
            _ => {}
        }
    }

    /// Forgets a service without instances.
    pub(super) fn forget(&self, key: &ServiceKey) {
        self.services.remove(key);
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

    /// How many services have instances.
    pub(super) fn services(&self) -> usize {
        self.listed.load(Ordering::Relaxed)
    }

    /// The names of all services of the namespace that have instances, in order.
    pub(super) fn names(&self, namespace: &Name) -> Vec<Name> {
        let names = self.names.read();
        names.get(namespace).into_iter().flatten().cloned().collect()
    }

    /// The services of the namespace from behind `after`, of `count` names at most, and the last of
    /// these names where there may be more. A service whose last instance left meanwhile is left out.
    pub(super) fn page(
        &self,
        namespace: &Name,
        after: Option<&Name>,
        count: usize,
    ) -> (Vec<ServiceSummary>, Option<Name>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names: Vec<Name> = match self.names.read().get(namespace) {
            Some(services) => {
                services.range((from, Bound::Unbounded)).take(count).cloned().collect()
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
