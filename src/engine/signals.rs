//! Wakes watches. A signal says only that there is more: what it is, each watch reads from the log
//! at its own pace, so a slow one holds nothing up and costs nothing more.

use std::{collections::HashMap, sync::Arc};

use dashmap::{DashMap, mapref::entry::Entry};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::{Name, ServiceKey};

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Signals {
    services: Topics<Arc<ServiceKey>>,
    namespaces: Topics<Name>,
}

/// The waiters of each topic that has any.
type Topics<K> = DashMap<K, Mutex<HashMap<usize, Arc<Notify>>>>;

impl Signals {
    /// Wakes those who follow the service or its namespace.
    pub(super) fn wake_service(&self, key: &ServiceKey) {
        wake(self.services.get(key).as_deref());
    }

    /// Wakes those who follow the whole namespace.
    pub(super) fn wake_namespace(&self, namespace: &Name) {
        wake(self.namespaces.get(namespace).as_deref());
    }

    pub(super) fn join_service(&self, key: &Arc<ServiceKey>, waiter: &Arc<Notify>) {
        join(&self.services, Arc::clone(key), waiter);
    }

    pub(super) fn leave_service(&self, key: &Arc<ServiceKey>, waiter: &Arc<Notify>) {
        leave(&self.services, Arc::clone(key), waiter);
    }

    pub(super) fn join_namespace(&self, namespace: &Name, waiter: &Arc<Notify>) {
        join(&self.namespaces, namespace.clone(), waiter);
    }

    pub(super) fn leave_namespace(&self, namespace: &Name, waiter: &Arc<Notify>) {
        leave(&self.namespaces, namespace.clone(), waiter);
    }
}

fn wake(waiters: Option<&Mutex<HashMap<usize, Arc<Notify>>>>) {
    for waiter in waiters.map(|waiters| waiters.lock()).iter().flat_map(|waiters| waiters.values())
    {
        // Leaves a permit where nobody waits at the moment: no wake-up is lost.
        waiter.notify_one();
    }
}

/// A waiter is known by its address: it lives for as long as it is joined.
fn identity(waiter: &Arc<Notify>) -> usize {
    Arc::as_ptr(waiter) as usize
}

fn join<K: Eq + std::hash::Hash>(topics: &Topics<K>, topic: K, waiter: &Arc<Notify>) {
    let waiters = topics.entry(topic).or_default();
    waiters.lock().insert(identity(waiter), Arc::clone(waiter));
}

fn leave<K: Eq + std::hash::Hash>(topics: &Topics<K>, topic: K, waiter: &Arc<Notify>) {
    if let Entry::Occupied(waiters) = topics.entry(topic) {
        waiters.get().lock().remove(&identity(waiter));
        if waiters.get().lock().is_empty() {
            waiters.remove();
        }
    }
}
