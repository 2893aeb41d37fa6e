//! The services behind the gateway, each with the view of its instances and the channels to them.
//! Invariant: names without instances, which callers can make up, cost at most `UNKNOWN_MAX` watches.
//! Invariant: there is one lock, and nothing is created or dropped while it is held.

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

/// Watched names without instances, at most. A further one takes the place of the oldest.
const UNKNOWN_MAX: usize = 256;
/// The longest that a request waits for the first view of a service.
const INTRODUCTION_MAX: Duration = Duration::from_secs(2);

type ByName = HashMap<Arc<str>, Arc<Upstream>>;

/// All services, by name.
pub(crate) struct Upstreams {
    client: Client,
    /// Runs the watches, which may outlive the threads that serve requests.
    runtime: Handle,
    /// Services that have had an instance, and those that a route names. Requests read it without a lock;
    /// it changes only while `unknown` is locked.
    known: ArcSwap<ByName>,
    unknown: Mutex<Unknown>,
}

/// The names that no instance was seen of.
#[derive(Default)]
struct Unknown {
    by_name: ByName,
    /// The oldest first.
    order: VecDeque<Arc<str>>,
}

/// A service and the channels to it, whose connections all routes share.
pub(crate) struct Upstream {
    pub(crate) service: Service,
    pub(crate) http: HttpChannel,
    pub(crate) grpc: BalancedChannel,
    /// Set once it has had an instance.
    was_seen: AtomicBool,
}

/// What the registry reports of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has instances, or has had some.
    Known,
    /// It never had any.
    Unknown,
    /// The registry has not answered yet.
    Untold,
}

impl Upstreams {
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(client: Client) -> Self {
        let runtime = Handle::current();
        Self { client, runtime, known: ArcSwap::default(), unknown: Mutex::default() }
    }

    /// The service `name`, watched from now on. While it has no instance, it is watched only until
    /// `UNKNOWN_MAX` further names come.
    pub(crate) fn get(&self, name: &str) -> Arc<Upstream> {
        if let Some(upstream) = self.find(name) {
            return upstream;
        }
        let created = self.create(name);
        let (upstream, evicted) = self.lock().insert(name, created);
        // Without the lock: to end a watch locks the client's tables.
        drop(evicted);
        upstream
    }

    /// Watches `names` whether they have instances or not, and no longer those of the call before.
    pub(crate) fn keep<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
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

    /// What the registry reports of `upstream`; waits up to `INTRODUCTION_MAX` for its first view. Cancel
    /// safe.
    pub(crate) async fn standing(&self, upstream: &Arc<Upstream>) -> Standing {
        if upstream.was_seen.load(Ordering::Relaxed) {
            return Standing::Known;
        }
        if upstream.service.snapshot().is_none() {
            // A refusal, and a view that comes too late, leave it without one.
            let _ready = time::timeout(INTRODUCTION_MAX, upstream.service.ready()).await;
        }
        if upstream.is_known() {
            self.promote(upstream);
            return Standing::Known;
        }
        match upstream.service.snapshot() {
            None => Standing::Untold,
            Some(_) => Standing::Unknown,
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Upstream>> {
        if let Some(upstream) = self.known.load().get(name) {
            return Some(Arc::clone(upstream));
        }
        self.lock().by_name.get(name).map(Arc::clone)
    }

    fn create(&self, name: &str) -> Arc<Upstream> {
        let _spawns_there = self.runtime.enter();
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
        // Nothing that is done under the lock panics.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unknown {
    /// Inserts `created`, unless `name` was inserted meanwhile. Returns what stands for the name, and what
    /// is no longer needed.
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
    /// Returns whether the registry has reported it.
    pub(crate) fn is_loaded(&self) -> bool {
        self.service.snapshot().is_some()
    }

    /// Returns whether it has instances, or has had some.
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
        async fn standing_of(&self, name: &str) -> Standing {
            self.standing(&self.get(name)).await
        }

        fn names(&self) -> Vec<String> {
            let known = self.known.load_full();
            let unknown = self.lock();
            known.keys().chain(unknown.by_name.keys()).map(|name| name.to_string()).collect()
        }
    }

    #[tokio::test]
    async fn unknown_names_are_bounded_and_services_stay() {
        let registry = Registry::new();
        registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        assert_eq!(upstreams.standing_of("orders").await, Standing::Known);
        assert_eq!(upstreams.standing_of("unknown").await, Standing::Unknown);
        upstreams.keep(["prices"]);
        assert_eq!(upstreams.standing_of("prices").await, Standing::Unknown);
        for number in 0..2 * UNKNOWN_MAX {
            upstreams.get(&format!("made-up-{number}"));
        }
        let names = upstreams.names();
        assert_eq!(names.len(), UNKNOWN_MAX + 2);
        assert!(names.iter().any(|name| name == "orders"));
        assert!(names.iter().any(|name| name == "prices"), "a route names it");
        assert!(!names.iter().any(|name| name == "unknown"));
    }

    #[tokio::test]
    async fn a_name_is_kept_until_no_route_has_it() {
        let registry = Registry::new();
        registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        upstreams.keep(["orders", "prices"]);
        let prices = upstreams.get("prices");
        assert_eq!(upstreams.standing_of("orders").await, Standing::Known);
        upstreams.keep(["stock", "prices"]);
        assert!(Arc::ptr_eq(&prices, &upstreams.get("prices")), "its watch goes on");
        upstreams.keep([]);
        assert_eq!(upstreams.names(), ["orders"]);
    }

    #[tokio::test]
    async fn a_service_whose_last_instance_left_is_still_known() {
        let registry = Registry::new();
        let replica = registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        let orders = upstreams.get("orders");
        assert_eq!(upstreams.standing(&orders).await, Standing::Known);
        let mut changes = orders.service.changes();
        registry.leave("orders", &replica.id);
        while !orders.service.snapshot().expect("a view").is_empty() {
            changes.next().await.expect("another view");
        }
        assert_eq!(upstreams.standing(&orders).await, Standing::Known);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn threads_that_ask_for_many_names_never_wait_for_each_other() {
        const THREADS: usize = 8;
        const NAMES: usize = 2_000;
        let registry = Registry::new();
        let upstreams = Arc::new(Upstreams::new(registry.client()));
        let (ended, ends) = mpsc::sync_channel(THREADS);
        // Threads of their own, which a deadlock does not keep the test from ending.
        for thread in 0..THREADS {
            let (upstreams, ended) = (Arc::clone(&upstreams), ended.clone());
            thread::Builder::new()
                .spawn(move || {
                    for number in 0..NAMES {
                        upstreams.get(&format!("made-up-{}-{number}", thread % 3));
                        if number % 100 == 0 {
                            upstreams.keep(["orders", "prices"]);
                        }
                    }
                    let _sent = ended.send(());
                })
                .expect("a thread");
        }
        for _ in 0..THREADS {
            ends.recv_timeout(Duration::from_secs(60)).expect("a thread waits for a lock for ever");
        }
        assert!(upstreams.names().len() <= UNKNOWN_MAX + 2);
    }
}
