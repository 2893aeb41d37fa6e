//! The services behind the gateway: those that it has been asked for, with the views of their instances.
//! What strangers make up must never cost more than a bounded number of watches.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{runtime::Handle, time};
use waypost_client::{BalancedChannel, Client, HttpChannel, Service};

/// How many names without instances are watched: those asked for last.
const STRANGERS_MAX: usize = 256;
/// How long a request waits to hear of a service that was not asked for before.
const INTRODUCTION_MAX: Duration = Duration::from_secs(2);

/// All of them, by name.
pub(crate) struct Upstreams {
    client: Client,
    /// Where services are followed: not on a thread that serves, which the client may outlive.
    runtime: Handle,
    known: DashMap<Box<str>, Arc<Upstream>>,
    /// Those that were asked for and had no instances, the oldest first.
    strangers: Mutex<VecDeque<Box<str>>>,
}

/// A service, and the ways to it, whose connections all routes share.
pub(crate) struct Upstream {
    pub(crate) service: Service,
    pub(crate) http: HttpChannel,
    pub(crate) grpc: BalancedChannel,
    /// Whether it has had instances.
    was_seen: AtomicBool,
    /// Whether the gateway itself asks for it.
    is_kept: AtomicBool,
}

/// What the registry says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has instances, or has had some.
    Known,
    /// It never had any.
    Unknown,
    /// The registry has said nothing yet.
    Untold,
}

impl Upstreams {
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(client: Client) -> Self {
        let runtime = Handle::current();
        Self { client, runtime, known: DashMap::new(), strangers: Mutex::default() }
    }

    /// The service `name`, watched from now on. A stranger is watched only until many others come.
    pub(crate) fn get(&self, name: &str) -> Arc<Upstream> {
        if let Some(upstream) = self.known.get(name) {
            return Arc::clone(&upstream);
        }
        let upstream = Arc::clone(&self.known.entry(name.into()).or_insert_with(|| {
            self.meet(name);
            let _followed_there = self.runtime.enter();
            let service = self.client.service(name);
            let (http, grpc) = (service.http_channel(), service.channel());
            Arc::new(Upstream {
                service,
                http,
                grpc,
                was_seen: AtomicBool::new(false),
                is_kept: AtomicBool::new(false),
            })
        }));
        self.part();
        upstream
    }

    /// The same, watched for good.
    pub(crate) fn keep(&self, name: &str) -> Arc<Upstream> {
        let upstream = self.get(name);
        upstream.is_kept.store(true, Ordering::Relaxed);
        upstream
    }

    fn meet(&self, name: &str) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.push_back(name.into());
    }

    /// Lets go of the oldest strangers; who turned out to be a service stays.
    fn part(&self) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        while strangers.len() > STRANGERS_MAX {
            let oldest = strangers.pop_front();
            if let Some(name) = oldest {
                self.known.remove_if(&name, |_, upstream| {
                    !upstream.is_known() && !upstream.is_kept.load(Ordering::Relaxed)
                });
            }
        }
    }
}

impl Upstream {
    /// Whether it has instances, or has had some.
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

    /// What the registry says of it; waits a moment for that where it has not been asked before. Cancel
    /// safe.
    pub(crate) async fn standing(&self) -> Standing {
        if self.is_known() {
            return Standing::Known;
        }
        if self.service.snapshot().is_none() {
            // Refused, or too late: the same.
            let _told = time::timeout(INTRODUCTION_MAX, self.service.ready()).await;
        }
        match self.service.snapshot() {
            None => Standing::Untold,
            Some(_) if self.is_known() => Standing::Known,
            Some(_) => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use waypost_client::{Registration, fake::Registry};

    use super::*;

    #[tokio::test]
    async fn strangers_are_let_go_and_services_stay() {
        let registry = Registry::new();
        registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        assert_eq!(upstreams.get("orders").standing().await, Standing::Known);
        assert_eq!(upstreams.get("nobody").standing().await, Standing::Unknown);
        assert_eq!(upstreams.keep("prices").standing().await, Standing::Unknown);
        for stranger in 0..2 * STRANGERS_MAX {
            upstreams.get(&format!("stranger-{stranger}"));
        }
        assert!(upstreams.known.len() <= STRANGERS_MAX + 2, "{}", upstreams.known.len());
        assert!(upstreams.known.contains_key("orders"));
        assert!(upstreams.known.contains_key("prices"), "the gateway asks for it itself");
        assert!(!upstreams.known.contains_key("nobody"));
    }

    #[tokio::test]
    async fn a_service_whose_last_instance_left_is_still_known() {
        let registry = Registry::new();
        let replica = registry.join(Registration::new("orders", "10.0.0.1", 80));
        let upstreams = Upstreams::new(registry.client());
        let orders = upstreams.get("orders");
        assert_eq!(orders.standing().await, Standing::Known);
        let mut changes = orders.service.changes();
        registry.leave("orders", &replica.id);
        while !orders.service.snapshot().expect("a view").is_empty() {
            changes.next().await.expect("another view");
        }
        assert_eq!(orders.standing().await, Standing::Known);
    }
}
