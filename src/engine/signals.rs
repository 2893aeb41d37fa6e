//! Wakes watches. A signal carries nothing: each watch reads the log at its own pace, so a slow one
//! delays nothing and costs no memory.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    hash::Hash,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use dashmap::{DashMap, mapref::entry::Entry};
use futures_util::task::AtomicWaker;

use crate::model::{Name, ServiceKey};

/// The waiters of all services and namespaces.
#[derive(Debug, Default)]
pub(super) struct Signals {
    services: Topics<Arc<ServiceKey>>,
    namespaces: Topics<Name>,
    /// The number of waiters ever created.
    waiters: AtomicU64,
}

/// The waiters by topic; a topic without waiters has no entry.
type Topics<K> = DashMap<K, Waiters>;

/// The waiters of a topic in the order of their creation, so that simulations are repeatable.
#[derive(Debug, Default)]
struct Waiters {
    all: BTreeMap<u64, Arc<Waiter>>,
    /// The same as a list, which is woken without the map's lock: a waker may call back into these
    /// signals. Empty after a change; the next signal fills it.
    list: OnceLock<Arc<[Arc<Waiter>]>>,
}

/// A flag and the waker of one task at a time.
#[derive(Debug)]
pub(super) struct Waiter {
    number: u64,
    signalled: AtomicBool,
    waker: AtomicWaker,
}

impl Waiter {
    /// Completes with the next signal, or with one sent since the last poll.
    pub(super) fn poll_signal(&self, context: &Context<'_>) -> Poll<()> {
        if !self.signalled.load(Ordering::Acquire) {
            self.waker.register(context.waker());
        }
        // Checked again: a signal before `register` found no waker.
        if self.signalled.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sets the flag, which stays set if no task waits: no signal is lost.
    fn signal(&self) {
        self.signalled.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Signals {
    /// Creates a waiter without topics.
    pub(super) fn waiter(&self) -> Arc<Waiter> {
        let number = self.waiters.fetch_add(1, Ordering::Relaxed);
        Arc::new(Waiter { number, signalled: AtomicBool::new(false), waker: AtomicWaker::new() })
    }

    /// Wakes the waiters of a service.
    pub(super) fn wake_service(&self, key: &ServiceKey) {
        wake(&self.services, key);
    }

    /// Wakes the waiters of a whole namespace.
    pub(super) fn wake_namespace(&self, namespace: &Name) {
        wake(&self.namespaces, namespace);
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

impl Waiters {
    fn list(&self) -> Arc<[Arc<Waiter>]> {
        Arc::clone(self.list.get_or_init(|| self.all.values().cloned().collect()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the guard is held while the list is copied")]
fn wake<K, Q>(topics: &Topics<K>, topic: &Q)
where
    K: Eq + Hash + Borrow<Q>,
    Q: Eq + Hash + ?Sized,
{
    // A waiter that joins later reads the log before it waits.
    let waiters = topics.get(topic).map(|waiters| waiters.list());
    for waiter in waiters.iter().flat_map(|waiters| waiters.iter()) {
        waiter.signal();
    }
}

#[expect(clippy::disallowed_methods, reason = "the guard is held while a waiter is added")]
fn join<K: Eq + Hash>(topics: &Topics<K>, topic: K, waiter: &Arc<Waiter>) {
    let mut waiters = topics.entry(topic).or_default();
    waiters.all.insert(waiter.number, Arc::clone(waiter));
    waiters.list.take();
}

#[expect(clippy::disallowed_methods, reason = "the guard is held while a waiter is removed")]
fn leave<K: Eq + Hash>(topics: &Topics<K>, topic: K, waiter: &Arc<Waiter>) {
    if let Entry::Occupied(mut waiters) = topics.entry(topic) {
        waiters.get_mut().all.remove(&waiter.number);
        waiters.get_mut().list.take();
        if waiters.get().all.is_empty() {
            waiters.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{atomic::AtomicUsize, mpsc::sync_channel},
        thread,
        time::Duration,
    };

    use futures_util::task::{ArcWake, waker};
    use waypost_core::testing::key;

    use super::*;

    /// Leaves and joins its topic when woken, as a task that drops a watch may.
    struct RejoiningWaker {
        signals: Signals,
        key: Arc<ServiceKey>,
        waiter: Arc<Waiter>,
        woken: AtomicUsize,
    }

    impl ArcWake for RejoiningWaker {
        fn wake_by_ref(rejoining: &Arc<Self>) {
            let RejoiningWaker { signals, key, waiter, woken } = &**rejoining;
            signals.leave_service(key, waiter);
            signals.join_service(key, waiter);
            woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Detects a deadlock by a timeout.
    #[test]
    fn waker_may_leave_and_join() {
        let (done, ended) = sync_channel(1);
        let run = move || {
            leave_and_join_when_woken();
            done.send(()).unwrap();
        };
        let thread = thread::Builder::new().spawn(run).unwrap();
        assert!(ended.recv_timeout(Duration::from_secs(30)).is_ok(), "a signal holds no lock");
        thread.join().unwrap();
    }

    fn leave_and_join_when_woken() {
        let (signals, key) = (Signals::default(), Arc::new(key("n/s")));
        let (waiter, woken) = (signals.waiter(), AtomicUsize::new(0));
        let rejoining = Arc::new(RejoiningWaker { signals, key, waiter, woken });
        let RejoiningWaker { signals, key, waiter, woken } = &*rejoining;
        signals.join_service(key, waiter);
        let waker = waker(Arc::clone(&rejoining));
        let context = Context::from_waker(&waker);
        for round in 1..=3 {
            assert!(waiter.poll_signal(&context).is_pending());
            signals.wake_service(key);
            assert_eq!(woken.load(Ordering::Relaxed), round);
            assert!(waiter.poll_signal(&context).is_ready());
        }
        signals.leave_service(key, waiter);
        signals.wake_service(key);
        assert!(signals.services.is_empty(), "the last waiter removes its topic");
        assert_eq!(woken.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn signal_wakes_the_waiters_of_its_topic() {
        let (signals, key) = (Signals::default(), Arc::new(key("n/s")));
        let waiters: Vec<_> = (0..4).map(|_| signals.waiter()).collect();
        let context = Context::from_waker(std::task::Waker::noop());
        let woken = |waiter: &Arc<Waiter>| waiter.poll_signal(&context).is_ready();
        signals.join_service(&key, &waiters[0]);
        signals.join_service(&key, &waiters[1]);
        signals.wake_service(&key);
        assert_eq!([0, 1, 2].map(|one| woken(&waiters[one])), [true, true, false]);
        signals.join_service(&key, &waiters[2]);
        signals.leave_service(&key, &waiters[0]);
        signals.wake_service(&key);
        assert_eq!([0, 1, 2, 3].map(|one| woken(&waiters[one])), [false, true, true, false]);
        signals.join_namespace(&key.namespace, &waiters[3]);
        signals.wake_namespace(&key.namespace);
        assert_eq!([1, 2, 3].map(|one| woken(&waiters[one])), [false, false, true]);
    }
}
