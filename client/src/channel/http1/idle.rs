//! Idle connections of HTTP/1.1, each kept for a while for the next call. They belong to the
//! runtime that drives their sockets, and close with it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use tokio::runtime::Id;

use super::connection::Http1Connection;
use crate::runtime::{
    clock::{self, Instant},
    tasks,
};

/// The time for which requests that are not idempotent use new connections, after an instance
/// closed a kept one unexpectedly.
const CAUTION_TIME: Duration = Duration::from_secs(60);

/// The interval between searches for expired connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The idle connections to the instances of a service.
#[derive(Default)]
pub(super) struct IdleConnections {
    /// The idle connections by the runtime that drives their sockets: a call on another runtime
    /// would need a wake-up from it for each response, and may outlive it.
    runtimes: DashMap<Id, Addresses>,
}

type Addresses = HashMap<Arc<str>, AddressConnections>;

/// The connections to one address.
#[derive(Default)]
struct AddressConnections {
    /// The most recently used is the last.
    idle: Vec<PooledConnection>,
    /// The time when the instance last closed one that a request was just sent over.
    closed_unexpectedly: Option<Instant>,
}

struct PooledConnection {
    connection: Box<Http1Connection>,
    since: Instant,
}

impl IdleConnections {
    /// Keeps connections of `runtime` from now on.
    pub(super) fn start(self: &Arc<Self>, runtime: Id) {
        if self.add_runtime(runtime) {
            let sweeper = Sweeper { pool: Arc::downgrade(self), runtime };
            tasks::spawn("idle connections", sweeper.sweep());
        }
    }

    /// Keeps a connection, if it can take another call.
    pub(super) fn put_back(&self, mut connection: Box<Http1Connection>) {
        if connection.is_ready() {
            self.put(PooledConnection { connection, since: clock::now() });
        }
    }
}

// No guard is held while a connection is polled or dropped: both run code of the connection, and of
// the request that it may still hold, which may call back here.
#[expect(clippy::disallowed_methods, reason = "the guards are held while connections are moved")]
impl IdleConnections {
    /// Returns false if the runtime is known already.
    fn add_runtime(&self, runtime: Id) -> bool {
        match self.runtimes.entry(runtime) {
            Entry::Vacant(addresses) => drop(addresses.insert(Addresses::default())),
            Entry::Occupied(_) => return false,
        }
        true
    }

    fn put(&self, idle: PooledConnection) {
        // If its runtime has ended, the connection is dropped after the guard.
        if let Some(mut addresses) = self.runtimes.get_mut(&idle.connection.runtime) {
            addresses.entry(Arc::clone(&idle.connection.address)).or_default().idle.push(idle);
        }
    }

    /// Takes an open connection to `address`. None for a request that is not idempotent if the
    /// instance may close it at any time; one is dropped instead, as the new one will be kept.
    pub(super) fn take(
        &self,
        runtime: Id,
        address: &str,
        is_idempotent: bool,
    ) -> Option<Box<Http1Connection>> {
        let now = clock::now();
        if !is_idempotent && self.closes_unexpectedly(runtime, address, now) {
            drop(self.pop(runtime, address));
            return None;
        }
        while let Some(mut last) = self.pop(runtime, address) {
            if !last.is_expired(now) && last.connection.is_ready() {
                return Some(last.connection);
            }
        }
        None
    }

    fn pop(&self, runtime: Id, address: &str) -> Option<PooledConnection> {
        self.runtimes.get_mut(&runtime)?.get_mut(address)?.idle.pop()
    }

    fn closes_unexpectedly(&self, runtime: Id, address: &str, now: Instant) -> bool {
        let addresses = self.runtimes.get(&runtime);
        addresses.is_some_and(|addresses| {
            addresses.get(address).is_some_and(|connections| connections.closes_unexpectedly(now))
        })
    }

    pub(super) fn record_unexpected_close(&self, connection: &Http1Connection) {
        let Some(mut addresses) = self.runtimes.get_mut(&connection.runtime) else { return };
        addresses.entry(Arc::clone(&connection.address)).or_default().closed_unexpectedly =
            Some(clock::now());
    }

    fn drop_expired(&self, runtime: Id) {
        let now = clock::now();
        let mut expired = Vec::new();
        if let Some(mut addresses) = self.runtimes.get_mut(&runtime) {
            addresses.retain(|_, connections| {
                expired.extend(connections.idle.extract_if(.., |one| one.is_expired(now)));
                !connections.idle.is_empty() || connections.closes_unexpectedly(now)
            });
        }
        drop(expired);
    }
}

impl AddressConnections {
    fn closes_unexpectedly(&self, now: Instant) -> bool {
        self.closed_unexpectedly.is_some_and(|at| now.saturating_duration_since(at) < CAUTION_TIME)
    }
}

impl PooledConnection {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.connection.idle_max
    }
}

/// Sweeps the idle connections of a runtime, and drops them when it ends.
struct Sweeper {
    pool: Weak<IdleConnections>,
    runtime: Id,
}

impl Sweeper {
    /// Closes expired connections, while the pool exists.
    async fn sweep(self) {
        loop {
            clock::sleep(SWEEP_INTERVAL).await;
            let Some(pool) = self.pool.upgrade() else { return };
            pool.drop_expired(self.runtime);
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.runtimes.remove(&self.runtime);
        }
    }
}
