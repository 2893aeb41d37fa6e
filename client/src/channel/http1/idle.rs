//! Idle connections of HTTP/1.1, each kept for a while for the next call. They belong to the runtime that
//! moves their bytes, and close with it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use tokio::runtime::Id;

use super::connection::Http1;
use crate::runtime::{
    clock::{self, Instant},
    tasks,
};

/// For how long requests that can't be repeated go over new connections, once an instance has closed a
/// kept one without a warning.
const SURPRISED_FOR: Duration = Duration::from_secs(60);

/// How often those that nobody uses are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The idle connections to the instances of a service.
#[derive(Default)]
pub(super) struct IdleConnections {
    /// Those that nobody uses, by the runtime that moves their bytes: another one would have to be woken
    /// by it for each answer, and may outlive it.
    homes: DashMap<Id, Home>,
}

type Home = HashMap<Arc<str>, Kept>;

/// The connections to one address.
#[derive(Default)]
struct Kept {
    /// The last one used is the last.
    idle: Vec<Idle>,
    /// When the instance last closed one that a request had just gone into.
    surprised: Option<Instant>,
}

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

impl IdleConnections {
    /// Keeps connections of `runtime` from now on.
    pub(super) fn serve(self: &Arc<Self>, runtime: Id) {
        if self.add_home(runtime) {
            let keeper = Keeper { pool: Arc::downgrade(self), runtime };
            tasks::spawn("idle connections", keeper.sweep());
        }
    }

    /// Takes a connection back, where it can have another call.
    pub(super) fn give_back(&self, mut connection: Box<Http1>) {
        if connection.is_ready() {
            self.put(Idle { connection, since: clock::now() });
        }
    }
}

// No guard is held while a connection is looked at or dropped: both run code of the connection's, and of
// the request that it may still hold, which may come back here.
#[expect(clippy::disallowed_methods, reason = "the guards are held while connections are moved")]
impl IdleConnections {
    /// Returns false where the runtime has a home already.
    fn add_home(&self, runtime: Id) -> bool {
        match self.homes.entry(runtime) {
            Entry::Vacant(home) => drop(home.insert(Home::default())),
            Entry::Occupied(_) => return false,
        }
        true
    }

    fn put(&self, idle: Idle) {
        // Where its runtime has ended, it is of no use, and is dropped after the guard.
        if let Some(mut home) = self.homes.get_mut(&idle.connection.runtime) {
            home.entry(Arc::clone(&idle.connection.address)).or_default().idle.push(idle);
        }
    }

    /// One to `address` that is open, as far as is known. None for a request that can't be repeated where
    /// the instance may close it at any time; one goes in its place, as a new one will be kept.
    pub(super) fn take(
        &self,
        runtime: Id,
        address: &str,
        is_idempotent: bool,
    ) -> Option<Box<Http1>> {
        let now = clock::now();
        if !is_idempotent && self.surprises(runtime, address, now) {
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

    fn pop(&self, runtime: Id, address: &str) -> Option<Idle> {
        self.homes.get_mut(&runtime)?.get_mut(address)?.idle.pop()
    }

    fn surprises(&self, runtime: Id, address: &str, now: Instant) -> bool {
        let home = self.homes.get(&runtime);
        home.is_some_and(|home| home.get(address).is_some_and(|kept| kept.surprises(now)))
    }

    pub(super) fn note_surprise(&self, connection: &Http1) {
        let Some(mut home) = self.homes.get_mut(&connection.runtime) else { return };
        home.entry(Arc::clone(&connection.address)).or_default().surprised = Some(clock::now());
    }

    fn drop_expired(&self, runtime: Id) {
        let now = clock::now();
        let mut expired = Vec::new();
        if let Some(mut home) = self.homes.get_mut(&runtime) {
            home.retain(|_, kept| {
                expired.extend(kept.idle.extract_if(.., |one| one.is_expired(now)));
                !kept.idle.is_empty() || kept.surprises(now)
            });
        }
        drop(expired);
    }
}

impl Kept {
    fn surprises(&self, now: Instant) -> bool {
        self.surprised.is_some_and(|at| now.saturating_duration_since(at) < SURPRISED_FOR)
    }
}

impl Idle {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.connection.idle_max
    }
}

/// Looks after the idle connections of a runtime, and lets go of them with it.
struct Keeper {
    pool: Weak<IdleConnections>,
    runtime: Id,
}

impl Keeper {
    /// Closes connections that were idle for too long, while the pool exists.
    async fn sweep(self) {
        loop {
            clock::sleep(SWEEP_INTERVAL).await;
            let Some(pool) = self.pool.upgrade() else { return };
            pool.drop_expired(self.runtime);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.homes.remove(&self.runtime);
        }
    }
}
