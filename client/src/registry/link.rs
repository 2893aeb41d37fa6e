//! The way to the registry: several addresses, one used at a time, the next one after a failure, and
//! back to the first one once it answers again. It never waits between attempts and never repeats a
//! request: its callers do both.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use http::Uri;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::{
    failback::{HOME, Homing},
    refusal::{Verdict, told},
    state::RegistryState,
};
use crate::{
    proto::{HeartbeatRequest, registry_client::RegistryClient},
    runtime::{backoff::Backoff, clock, tasks},
    transport::{Connection, Dialer, Slot},
};

/// The longest that a single request to the registry may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The registry, as one client reaches it.
#[derive(Debug)]
pub(crate) struct Link {
    /// In a random order.
    addresses: Box<[Address]>,
    route: Mutex<Route>,
    failback_interval: Duration,
    dialer: Dialer,
    backoff: Backoff,
    state: watch::Sender<RegistryState>,
    /// How often the home address was found to be well again.
    homecomings: watch::Sender<u64>,
    this: Weak<Self>,
    /// Ends what works in the background.
    ended: CancellationToken,
    _end: DropGuard,
}

#[derive(Debug)]
struct Route {
    homing: Homing,
    /// Lives as long as the task that tries the home address.
    trying: Weak<()>,
}

#[derive(Debug)]
struct Address {
    authority: Arc<str>,
    slot: Slot,
}

/// A connection to one of the addresses.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    pub(crate) connection: Connection,
    /// The address.
    pub(crate) peer: Arc<str>,
    index: usize,
}

/// What went wrong, and where.
#[derive(Clone, Debug)]
pub(crate) struct Missed {
    /// The address.
    pub(crate) peer: Arc<str>,
    pub(crate) status: Status,
}

impl Reached {
    /// Whether this is at the address to which the client wants to return.
    pub(crate) fn is_home(&self) -> bool {
        self.index == HOME
    }
}

impl Link {
    /// A way to `addresses`, of which there is at least one. They are tried in a random order, so that
    /// the clients of a registry spread over its addresses, and over those that are left where one
    /// fails. Its failed first address is tried again after `failback_interval` at the earliest.
    pub(crate) fn new(
        addresses: &[Uri],
        dialer: Dialer,
        backoff: Backoff,
        failback_interval: Duration,
    ) -> Arc<Self> {
        let mut addresses: Box<[_]> = addresses
            .iter()
            .filter_map(Uri::authority)
            .map(|authority| Address {
                authority: authority.as_str().into(),
                slot: Slot::default(),
            })
            .collect();
        fastrand::shuffle(&mut addresses);
        let homing = Homing::new(addresses.len(), failback_interval);
        let ended = CancellationToken::new();
        Arc::new_cyclic(|this| Self {
            addresses,
            route: Mutex::new(Route { homing, trying: Weak::new() }),
            failback_interval,
            dialer,
            backoff,
            state: watch::Sender::new(RegistryState::Idle),
            homecomings: watch::Sender::new(0),
            this: Weak::clone(this),
            _end: ended.clone().drop_guard(),
            ended,
        })
    }

    /// A backoff for one of the callers.
    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }

    /// How the registry answers.
    pub(crate) fn state(&self) -> watch::Receiver<RegistryState> {
        self.state.subscribe()
    }

    /// Changes when the home address was found to be well again: who is elsewhere moves there, by and
    /// by ([`Self::detour`]).
    pub(crate) fn homecomings(&self) -> watch::Receiver<u64> {
        self.homecomings.subscribe()
    }

    /// How long one of those who move home waits before it does: clients return to a registry that
    /// has just come back, and each may bring many streams. `random` is from 0 to 1.
    pub(crate) fn detour(&self, random: f64) -> Duration {
        (self.failback_interval / 3).mul_f64(random.clamp(0.0, 1.0))
    }

    /// A connection to the address in use. Where it takes none, the next one is in use. Cancel
    /// safe.
    pub(crate) async fn reach(&self) -> Result<Reached, Missed> {
        self.reach_at(self.in_use()).await
    }

    async fn reach_at(&self, index: usize) -> Result<Reached, Missed> {
        let address = &self.addresses[index];
        let peer = Arc::clone(&address.authority);
        match address.slot.connection(&self.dialer, &address.authority).await {
            Ok(connection) => Ok(Reached { connection, peer, index }),
            Err(error) => {
                let status = Status::unavailable(error.to_string());
                self.failed(index, told(&status));
                Err(Missed { peer, status })
            }
        }
    }

    /// Lets go of a connection on which something failed, and uses the next address.
    pub(crate) fn leave(&self, reached: &Reached) {
        self.leave_for(reached, "a stream broke off");
    }

    /// The same, saying why.
    pub(crate) fn leave_for(&self, reached: &Reached, reason: &str) {
        self.addresses[reached.index].slot.forget(&reached.connection);
        self.failed(reached.index, reason);
    }

    /// Something was heard from the registry.
    pub(crate) fn answered(&self, reached: &Reached) {
        if matches!(&*self.state.borrow(), RegistryState::Connected { peer } if *peer == reached.peer)
        {
            return;
        }
        // Before all have come home, answers come from two addresses: that is no news each time.
        let in_use = self.route().homing.current() == reached.index;
        self.state.send_if_modified(|state| {
            let news = in_use || !matches!(state, RegistryState::Connected { .. });
            if news {
                *state = RegistryState::Connected { peer: Arc::clone(&reached.peer) };
            }
            news
        });
    }

    /// One attempt at a request: a connection, and [`Self::ask`].
    pub(crate) async fn attempt<T, F>(
        &self,
        request: impl FnOnce(Connection) -> F + Send,
    ) -> Result<T, Missed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send,
    {
        let reached = self.reach().await?;
        self.ask(&reached, request).await
    }

    /// Sends a request, which may take [`REQUEST_TIMEOUT`]. A failure that may be the address's
    /// leaves it.
    pub(crate) async fn ask<T, F>(
        &self,
        reached: &Reached,
        request: impl FnOnce(Connection) -> F + Send,
    ) -> Result<T, Missed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send,
    {
        // Boxed: what waits for it, several calls up, stays small.
        let request = Box::pin(request(reached.connection.clone()));
        let answer = clock::within(REQUEST_TIMEOUT, request).await;
        let answer = answer.unwrap_or_else(|| Err(Self::late()));
        match &answer {
            Err(status) if Verdict::of(status).is_transient() => {
                self.leave_for(reached, told(status));
            }
            _ => self.answered(reached),
        }
        let missed = |status| Missed { peer: Arc::clone(&reached.peer), status };
        answer.map(tonic::Response::into_inner).map_err(missed)
    }

    /// The status of a request whose time is over.
    pub(crate) fn late() -> Status {
        Status::deadline_exceeded("the registry took too long to answer")
    }

    /// The address in use. Where that is not home, or home has failed before, somebody is to try home.
    fn in_use(&self) -> usize {
        let mut route = self.route();
        if route.homing.next_try().is_some() && route.trying.strong_count() == 0 {
            let alive = Arc::new(());
            route.trying = Arc::downgrade(&alive);
            let link = Weak::clone(&self.this);
            let ended = self.ended.clone();
            tasks::spawn("return", async move {
                // Owned by the task: however it ends, with its runtime, say, another one can begin.
                let _alive = alive;
                ended.run_until_cancelled(return_home(link)).await;
            });
        }
        route.homing.current()
    }

    /// When home is to be tried. None ends who asks: another one begins where it is needed again.
    fn next_try(&self) -> Option<clock::Instant> {
        let mut route = self.route();
        let next = route.homing.next_try();
        if next.is_none() {
            // Told with the route locked, so that a failure that comes now finds nobody trying.
            route.trying = Weak::new();
        }
        next
    }

    /// Asks the home address for something that costs it nothing, and that it must be well to answer:
    /// a heartbeat of no lease.
    async fn try_home(&self) {
        let (peer, asked) = (&self.addresses[HOME].authority, self.ask_home().await);
        let mut route = self.route();
        match asked {
            Ok(()) => {
                let was_away = route.homing.current() != HOME;
                route.homing.found(clock::now());
                drop(route);
                if was_away {
                    tracing::info!(peer = &**peer, "returning to the first registry");
                }
                self.homecomings.send_modify(|count| *count += 1);
            }
            Err(status) => {
                route.homing.missed(clock::now(), fastrand::f64());
                drop(route);
                tracing::debug!(peer = &**peer, reason = told(&status), "it is not back yet");
            }
        }
    }

    async fn ask_home(&self) -> Result<(), Status> {
        let address = &self.addresses[HOME];
        let connected = address.slot.connection(&self.dialer, &address.authority).await;
        let connection = connected.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut registry = RegistryClient::new(connection.clone());
        let heartbeat = Box::pin(registry.heartbeat(HeartbeatRequest::default()));
        let answer = clock::within(REQUEST_TIMEOUT, heartbeat).await;
        let answer = answer.unwrap_or_else(|| Err(Self::late()));
        answer.map(drop).inspect_err(|_| address.slot.forget(&connection))
    }

    fn failed(&self, index: usize, reason: &str) {
        let now = clock::now();
        self.route().homing.failed(index, now, fastrand::f64());
        self.state.send_if_modified(|state| {
            let news = !matches!(state, RegistryState::Unreachable { .. });
            if news {
                *state = RegistryState::Unreachable { since: now, reason: reason.into() };
            }
            news
        });
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        // Nothing that is done under the lock panics.
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries the home address from time to time, until it is well or nobody needs the link any more.
async fn return_home(link: Weak<Link>) {
    loop {
        let Some(at) = link.upgrade().and_then(|link| link.next_try()) else { return };
        clock::sleep_until(at).await;
        let Some(link) = link.upgrade() else { return };
        link.try_home().await;
    }
}
