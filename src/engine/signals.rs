//! Wakes watches. A signal says only that there is more: what it is, each watch reads from the log
//! at its own pace, so a slow one holds nothing up and costs nothing more.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use dashmap::{DashMap, mapref::entry::Entry};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::model::{Name, ServiceKey};

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Signals {
    services: Topics<Arc<ServiceKey>>,
    namespaces: Topics<Name>,
    /// How many waiters there have been.
    waiters: AtomicU64,
}

/// The waiters of each topic that has any, in the order in which they came: so that the same happens
/// each time that the same is simulated.
type Topics<K> = DashMap<K, Mutex<BTreeMap<u64, Arc<Waiter>>>>;

/// Somebody who is woken. One at a time waits for it.
#[derive(Debug)]
pub(super) struct Waiter {
    number: u64,
    signalled: AtomicBool,
    waker: AtomicWaker,
}

impl Waiter {
    /// Ready with the next signal, or with one that came since the last.
    pub(super) fn poll_signal(&self, context: &Context<'_>) -> Poll<()> {
        if !self.signalled.load(Ordering::Acquire) {
            self.waker.register(context.waker());
        }
        // Looked at again: a signal that came before the waker stood there woke nobody.
        if self.signalled.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Stays where nobody waits at the moment: no signal is lost.
    fn signal(&self) {
        self.signalled.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Signals {
    /// One who waits for nothing yet.
    pub(super) fn waiter(&self) -> Arc<Waiter> {
        let number = self.waiters.fetch_add(1, Ordering::Relaxed);
        Arc::new(Waiter { number, signalled: AtomicBool::new(false), waker: AtomicWaker::new() })
    }

    /// Wakes those who follow the service or its namespace.
    pub(super) fn wake_service(&self, key: &ServiceKey) {
        wake(self.services.get(key).as_deref());
    }

    /// Wakes those who follow the whole namespace.
    pub(super) fn wake_namespace(&self, namespace: &Name) {
        wake(self.namespaces.get(namespace).as_deref());
    }

    pub(super) fn join_service(&self, key: &Arc<ServiceKey>, waiter: &Arc<Waiter>) {
        join(&self.services, Arc::clone(key), waiter);
    }

    pub(super) fn leave_service(&self, key: &Arc<ServiceKey>, waiter: &Arc<Waiter>) {
        leave(&self.services, Arc::clone(key), waiter);
    }

    pub(super) fn join_namespace(&self, namespace: &Name, waiter: &Arc<Waiter>) {
        join(&self.namespaces, namespace.clone(), waiter);
    }

    pub(super) fn leave_namespace(&self, namespace: &Name, waiter: &Arc<Waiter>) {
        leave(&self.namespaces, namespace.clone(), waiter);
    }
}

fn wake(waiters: Option<&Mutex<BTreeMap<u64, Arc<Waiter>>>>) {
    for waiter in waiters.map(|waiters| waiters.lock()).iter().flat_map(|waiters| waiters.values())
    {
        waiter.signal();
    }
}

fn join<K: Eq + std::hash::Hash>(topics: &Topics<K>, topic: K, waiter: &Arc<Waiter>) {
    let waiters = topics.entry(topic).or_default();
    waiters.lock().insert(waiter.number, Arc::clone(waiter));
}

fn leave<K: Eq + std::hash::Hash>(topics: &Topics<K>, topic: K, waiter: &Arc<Waiter>) {
    if let Entry::Occupied(waiters) = topics.entry(topic) {
        waiters.get().lock().remove(&waiter.number);
        if waiters.get().lock().is_empty() {
            waiters.remove();
        }
    }
}
