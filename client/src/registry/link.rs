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
    failback::{Failback, PRIMARY},
    refusal::{Retryability, message},
    state::RegistryState,
};
use crate::{
    proto::{HeartbeatRequest, registry_client::RegistryClient},
    runtime::{backoff::Backoff, clock, tasks},
    transport::{Connection, Dialer, SharedConnection},
};

/// The longest that a single request to the registry may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The registry, as one client reaches it.
#[derive(Debug)]
pub(crate) struct RegistryLink {
    /// In a random order.
    addresses: Box<[Address]>,
    choice: Mutex<AddressChoice>,
    failback_interval: Duration,
    dialer: Dialer,
    backoff: Backoff,
    state: watch::Sender<RegistryState>,
    /// How often the home address was found to be well again.
    failbacks: watch::Sender<u64>,
    this: Weak<Self>,
    /// Ends what works in the background.
    ended: CancellationToken,
    _end: DropGuard,
}

#[derive(Debug)]
struct AddressChoice {
    failback: Failback,
    /// Lives as long as the task that tries the home address.
    probe_task: Weak<()>,
}

#[derive(Debug)]
struct Address {
    authority: Arc<str>,
    connection: SharedConnection,
}

/// A connection to one of the addresses.
#[derive(Clone, Debug)]
pub(crate) struct RegistryConnection {
    pub(crate) transport: Connection,
    /// The address.
    pub(crate) peer: Arc<str>,
    index: usize,
}

/// What went wrong, and where.
#[derive(Clone, Debug)]
pub(crate) struct RequestFailure {
    /// The address.
    pub(crate) peer: Arc<str>,
    pub(crate) status: Status,
}

impl RegistryConnection {
    /// Whether this is at the address to which the client wants to return.
    pub(crate) fn is_primary(&self) -> bool {
        self.index == PRIMARY
    }
}

impl RegistryLink {
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
                connection: SharedConnection::default(),
            })
            .collect();
        fastrand::shuffle(&mut addresses);
        let failback = Failback::new(addresses.len(), failback_interval);
        let ended = CancellationToken::new();
        Arc::new_cyclic(|this| Self {
            addresses,
            choice: Mutex::new(AddressChoice { failback, probe_task: Weak::new() }),
            failback_interval,
            dialer,
            backoff,
            state: watch::Sender::new(RegistryState::Idle),
            failbacks: watch::Sender::new(0),
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
    /// by ([`Self::failback_delay`]).
    pub(crate) fn failbacks(&self) -> watch::Receiver<u64> {
        self.failbacks.subscribe()
    }

    /// How long one of those who move home waits before it does: clients return to a registry that
    /// has just come back, and each may bring many streams. `random` is from 0 to 1.
    pub(crate) fn failback_delay(&self, random: f64) -> Duration {
        (self.failback_interval / 3).mul_f64(random.clamp(0.0, 1.0))
    }

    /// A connection to the address in use. Where it takes none, the next one is in use. Cancel
    /// safe.
    pub(crate) async fn connect(&self) -> Result<RegistryConnection, RequestFailure> {
        self.connect_to(self.current()).await
    }

    async fn connect_to(&self, index: usize) -> Result<RegistryConnection, RequestFailure> {
        let address = &self.addresses[index];
        let peer = Arc::clone(&address.authority);
        match address.connection.connect(&self.dialer, &address.authority).await {
            Ok(transport) => Ok(RegistryConnection { transport, peer, index }),
            Err(error) => {
                let status = Status::unavailable(error.to_string());
                self.mark_failed(index, message(&status));
                Err(RequestFailure { peer, status })
            }
        }
    }

    /// Lets go of a connection on which something failed, and uses the next address.
    pub(crate) fn fail(&self, connection: &RegistryConnection) {
        self.fail_with(connection, "a stream broke off");
    }

    /// The same, saying why.
    pub(crate) fn fail_with(&self, connection: &RegistryConnection, reason: &str) {
        self.addresses[connection.index].connection.discard(&connection.transport);
        self.mark_failed(connection.index, reason);
    }

    /// Something was heard from the registry.
    pub(crate) fn mark_connected(&self, connection: &RegistryConnection) {
        if matches!(&*self.state.borrow(), RegistryState::Connected { peer } if *peer == connection.peer)
        {
            return;
        }
        // Before all have come home, answers come from two addresses: that is no news each time.
        let in_use = self.choice().failback.current() == connection.index;
        self.state.send_if_modified(|state| {
            let news = in_use || !matches!(state, RegistryState::Connected { .. });
            if news {
                *state = RegistryState::Connected { peer: Arc::clone(&connection.peer) };
            }
            news
        });
    }

    /// One attempt at a request: a connection, and [`Self::ask`].
    pub(crate) async fn request<T, F>(
        &self,
        request: impl FnOnce(Connection) -> F + Send,
    ) -> Result<T, RequestFailure>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send,
    {
        let connection = self.connect().await?;
        self.request_on(&connection, request).await
    }

    /// Sends a request, which may take [`REQUEST_TIMEOUT`]. A failure that may be the address's
    /// leaves it.
    pub(crate) async fn request_on<T, F>(
        &self,
        connection: &RegistryConnection,
        request: impl FnOnce(Connection) -> F + Send,
    ) -> Result<T, RequestFailure>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send,
    {
        // Boxed: what waits for it, several calls up, stays small.
        let request = Box::pin(request(connection.transport.clone()));
        let answer = clock::within(REQUEST_TIMEOUT, request).await;
        let answer = answer.unwrap_or_else(|| Err(Self::timeout_status()));
        match &answer {
            Err(status) if Retryability::of(status).is_retryable() => {
                self.fail_with(connection, message(status));
            }
            _ => self.mark_connected(connection),
        }
        let failure = |status| RequestFailure { peer: Arc::clone(&connection.peer), status };
        answer.map(tonic::Response::into_inner).map_err(failure)
    }

    /// The status of a request whose time is over.
    pub(crate) fn timeout_status() -> Status {
        Status::deadline_exceeded("the registry took too long to answer")
    }

    /// The address in use. Where that is not home, or home has failed before, somebody is to try home.
    fn current(&self) -> usize {
        let mut choice = self.choice();
        if choice.failback.next_probe().is_some() && choice.probe_task.strong_count() == 0 {
            let alive = Arc::new(());
            choice.probe_task = Arc::downgrade(&alive);
            let link = Weak::clone(&self.this);
            let ended = self.ended.clone();
            tasks::spawn("return", async move {
                // Owned by the task: however it ends, with its runtime, say, another one can begin.
                let _alive = alive;
                ended.run_until_cancelled(run_failback(link)).await;
            });
        }
        choice.failback.current()
    }

    /// When home is to be tried. None ends who asks: another one begins where it is needed again.
    fn next_probe(&self) -> Option<clock::Instant> {
        let mut choice = self.choice();
        let next = choice.failback.next_probe();
        if next.is_none() {
            // Told with the choice locked, so that a failure that comes now finds nobody trying.
            choice.probe_task = Weak::new();
        }
        next
    }

    /// Asks the home address for something that costs it nothing, and that it must be well to answer:
    /// a heartbeat of no lease.
    async fn probe_primary(&self) {
        let (peer, asked) = (&self.addresses[PRIMARY].authority, self.heartbeat_primary().await);
        let mut choice = self.choice();
        match asked {
            Ok(()) => {
                let was_away = choice.failback.current() != PRIMARY;
                choice.failback.probe_succeeded(clock::now());
                drop(choice);
                if was_away {
                    tracing::info!(peer = &**peer, "returning to the first registry");
                }
                self.failbacks.send_modify(|count| *count += 1);
            }
            Err(status) => {
                choice.failback.probe_failed(clock::now(), fastrand::f64());
                drop(choice);
                tracing::debug!(peer = &**peer, reason = message(&status), "it is not back yet");
            }
        }
    }

    async fn heartbeat_primary(&self) -> Result<(), Status> {
        let address = &self.addresses[PRIMARY];
        let connected = address.connection.connect(&self.dialer, &address.authority).await;
        let connection = connected.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut registry = RegistryClient::new(connection.clone());
        let heartbeat = Box::pin(registry.heartbeat(HeartbeatRequest::default()));
        let answer = clock::within(REQUEST_TIMEOUT, heartbeat).await;
        let answer = answer.unwrap_or_else(|| Err(Self::timeout_status()));
        answer.map(drop).inspect_err(|_| address.connection.discard(&connection))
    }

    fn mark_failed(&self, index: usize, reason: &str) {
        let now = clock::now();
        self.choice().failback.failed(index, now, fastrand::f64());
        self.state.send_if_modified(|state| {
            let news = !matches!(state, RegistryState::Unreachable { .. });
            if news {
                *state = RegistryState::Unreachable { since: now, reason: reason.into() };
            }
            news
        });
    }

    fn choice(&self) -> MutexGuard<'_, AddressChoice> {
        // Nothing that is done under the lock panics.
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries the home address from time to time, until it is well or nobody needs the link any more.
async fn run_failback(link: Weak<RegistryLink>) {
    loop {
        let Some(at) = link.upgrade().and_then(|link| link.next_probe()) else { return };
        clock::sleep_until(at).await;
        let Some(link) = link.upgrade() else { return };
        link.probe_primary().await;
    }
}
