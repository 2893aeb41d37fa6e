//! The services behind the gateway, each with the view of its instances and the channels to them.
//! Invariant: names without instances, which callers can make up, cost at most `UNKNOWN_MAX`
//! watches.
//! Invariant: nothing is created or dropped while the one lock is held.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, time};
use waypost_client::{BalancedChannel, Client, HttpChannel, Service};

/// The watched names without instances, at most. A further one evicts the oldest.
const UNKNOWN_MAX: usize = 256;
/// The longest time that a request waits for the first view of a service.
const FIRST_VIEW_MAX: Duration = Duration::from_secs(2);

type ByName = HashMap<Arc<str>, Arc<Upstream>>;

/// The services, by name.
pub(crate) struct Upstreams {
    client: Client,
    /// Runs the watches, which may outlive the threads that serve requests.
    runtime: Handle,
    /// Services that have had an instance, and those of routes. Requests read it without a lock; it
    /// changes only while `unknown` is locked.
    known: ArcSwap<ByName>,
    unknown: Mutex<Unknown>,
}

/// The watched names without an instance.
#[derive(Default)]
struct Unknown {
    by_name: ByName,
    /// In the order of their watches, the oldest first.
    order: VecDeque<Arc<str>>,
}

/// A service and its channels, whose connections all routes share.
pub(crate) struct Upstream {
    pub(crate) service: Service,
    pub(crate) http: HttpChannel,
    pub(crate) grpc: BalancedChannel,
    /// Set once it has had an instance.
    was_seen: AtomicBool,
}

/// The state of a service, as the registry reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceState {
    /// The service has an instance, or has had one.
    Known,
    /// The service has had no instance since the gateway watches it.
    Unknown,
    /// The registry has not reported it yet.
    Loading,
}

impl Upstreams {
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(client: Client) -> Self {
        let runtime = Handle::current();
        Self { client, runtime, known: ArcSwap::default(), unknown: Mutex::default() }
    }

    /// Returns the service `name`, which is watched from now on. While it has no instance, it is
    /// watched until `UNKNOWN_MAX` further names have come.
    pub(crate) fn get(&self, name: &str) -> Arc<Upstream> {
        if let Some(upstream) = self.find(name) {
            return upstream;
        }
        let created = self.create(name);
        let (upstream, evicted) = self.lock().insert(name, created);
        // Without the lock: the end of a watch locks tables of the client.
        drop(evicted);
        upstream
    }

    /// Watches `names`, with or without instances, in place of those of the call before.
    pub(crate) fn pin<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut next: ByName =
            names.into_iter().map(|name| (name.into(), self.get(name))).collect();
        let mut unknown = self.lock();
        let before = self.known.load_full();
        let removed: Vec<_> = next.keys().map(|name| unknown.remove(name)).collect();
        for (name, upstream) in before.iter().filter(|(_, upstream)| upstream.is_known()) {
            next.insert(Arc::clone(name), Arc::clone(upstream));
        }
        self.known.store(Arc::new(next));
        drop(unknown);
        drop((before, removed));
    }

    /// Returns the state of `upstream`. Waits up to `FIRST_VIEW_MAX` for its first view. Cancel
    /// safe.
    pub(crate) async fn state(&self, upstream: &Arc<Upstream>) -> ServiceState {
        if upstream.was_seen.load(Ordering::Relaxed) {
            return ServiceState::Known;
        }
        if upstream.service.snapshot().is_none() {
            // After a refusal or a timeout, there is no view.
            let _ready = time::timeout(FIRST_VIEW_MAX, upstream.service.ready()).await;
        }
        if upstream.is_known() {
            self.promote(upstream);
            return ServiceState::Known;
        }
        match upstream.service.snapshot() {
            None => ServiceState::Loading,
            Some(_) => ServiceState::Unknown,
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Upstream>> {
        if let Some(upstream) = self.known.load().get(name) {
            return Some(Arc::clone(upstream));
        }
        self.lock().by_name.get(name).map(Arc::clone)
    }

    fn create(&self, name: &str) -> Arc<Upstream> {
        let _guard = self.runtime.enter();
        let service = self.client.service(name);
        let (http, grpc) = (service.http_channel(), service.channel());
        Arc::new(Upstream { service, http, grpc, was_seen: AtomicBool::new(false) })
    }

    /// Moves a service out of the names without instances.
    fn promote(&self, upstream: &Arc<Upstream>) {
        let name = upstream.service.name();
        let mut unknown = self.lock();
        let removed = unknown.remove(name);
        let known = self.known.load_full();
        if !known.contains_key(name) {
            let mut next = ByName::clone(&known);
            next.insert(name.into(), Arc::clone(upstream));
            self.known.store(Arc::new(next));
        }
        drop(unknown);
        drop((known, removed));
    }

    fn lock(&self) -> MutexGuard<'_, Unknown> {
        // Nothing panics under the lock.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unknown {
    /// Inserts `created`, unless `name` was inserted meanwhile. Returns the name's service, and the
    /// one to drop, if any.
    fn insert(
        &mut self,
        name: &str,
        created: Arc<Upstream>,
    ) -> (Arc<Upstream>, Option<Arc<Upstream>>) {
        if let Some(present) = self.by_name.get(name) {
            return (Arc::clone(present), Some(created));
        }
        let name: Arc<str> = name.into();
        self.order.push_back(Arc::clone(&name));
        self.by_name.insert(name, Arc::clone(&created));
        let oldest = (self.order.len() > UNKNOWN_MAX).then(|| self.order.pop_front()).flatten();
        (created, oldest.and_then(|oldest| self.by_name.remove(&oldest)))
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Upstream>> {
        let removed = self.by_name.remove(name)?;
        self.order.retain(|other| &**other != name);
        Some(removed)
    }
}

impl Upstream {
    /// Returns true once the registry has reported it.
    pub(crate) fn is_loaded(&self) -> bool {
        self.service.snapshot().is_some()
    }

    /// Returns true once it has had an instance.
    fn is_known(&self) -> bool {
        if self.was_seen.load(Ordering::Relaxed) {
            return true;
        }
        let known = self.service.snapshot().is_some_and(|view| !view.is_empty());
        if known {
            self.was_seen.store(true, Ordering::Relaxed);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use waypost_client::{Registration, fake::Registry};

    use super::*;

    impl Upstreams {
        async fn state_of(&self, name: &str) -> ServiceState {
            self.state(&self.get(name)).await
        }

        fn names(&self) -> Vec<String> {
            let known = self.known.load_full();
            let unknown = self.lock();
            known.keys().chain(unknown.by_name.keys()).map(|name| name.to_string()).collect()
        }
    }

    #[tokio::test]
    async fn unknown_names_are_bounded_and_services_are_kept() {
        let registry = Registry::new();
        registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        assert_eq!(upstreams.state_of("orders").await, ServiceState::Known);
        assert_eq!(upstreams.state_of("unknown").await, ServiceState::Unknown);
        upstreams.pin(["prices"]);
        assert_eq!(upstreams.state_of("prices").await, ServiceState::Unknown);
        for number in 0..2 * UNKNOWN_MAX {
            upstreams.get(&format!("made-up-{number}"));
        }
        let names = upstreams.names();
        assert_eq!(names.len(), UNKNOWN_MAX + 2);
        assert!(names.iter().any(|name| name == "orders"));
        assert!(names.iter().any(|name| name == "prices"), "it is pinned");
        assert!(!names.iter().any(|name| name == "unknown"));
    }

    #[tokio::test]
    async fn a_pinned_name_is_watched_until_no_route_has_it() {
        let registry = Registry::new();
        registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        upstreams.pin(["orders", "prices"]);
        let prices = upstreams.get("prices");
        assert_eq!(upstreams.state_of("orders").await, ServiceState::Known);
        upstreams.pin(["stock", "prices"]);
        assert!(Arc::ptr_eq(&prices, &upstreams.get("prices")), "its watch goes on");
        upstreams.pin([]);
        assert_eq!(upstreams.names(), ["orders"]);
    }

    #[tokio::test]
    async fn a_service_whose_last_instance_left_is_still_known() {
        let registry = Registry::new();
        let replica = registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        let orders = upstreams.get("orders");
        assert_eq!(upstreams.state(&orders).await, ServiceState::Known);
        let mut changes = orders.service.changes();
        registry.leave("orders", &replica.id);
        while !orders.service.snapshot().expect("a view").is_empty() {
            changes.next().await.expect("another view");
        }
        assert_eq!(upstreams.state(&orders).await, ServiceState::Known);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_lookups_do_not_deadlock() {
        const THREADS: usize = 8;
        const NAMES: usize = 2_000;
        let registry = Registry::new();
        let upstreams = Arc::new(Upstreams::new(registry.client()));
        let (ended, ends) = mpsc::sync_channel(THREADS);
        // Threads of their own: a deadlock does not keep the test from ending.
        for thread in 0..THREADS {
            let (upstreams, ended) = (Arc::clone(&upstreams), ended.clone());
            thread::Builder::new()
                .spawn(move || {
                    for number in 0..NAMES {
                        upstreams.get(&format!("made-up-{}-{number}", thread % 3));
                        if number % 100 == 0 {
                            upstreams.pin(["orders", "prices"]);
                        }
                    }
                    let _sent = ended.send(());
                })
                .expect("a thread");
        }
        for _ in 0..THREADS {
            ends.recv_timeout(Duration::from_secs(60)).expect("a deadlock");
        }
        assert!(upstreams.names().len() <= UNKNOWN_MAX + 2);
    }
}
