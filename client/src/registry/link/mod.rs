//! Requests to the registry: one of its addresses is in use, the next one after a failure, and the
//! primary one again once it works; connections move when the `credentials` change. Never waits
//! between attempts and never repeats a request: both are up to the callers.

mod credentials;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use http::{Request, Response, Uri};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, body::Body};

use super::{
    failback::{Failback, PRIMARY},
    refusal::{Retryability, message},
    renewal::RenewalPlan,
    state::RegistryState,
};
use crate::{
    credentials::ActiveCredentials,
    proto::{HeartbeatRequest, registry_client::RegistryClient},
    runtime::{backoff::Backoff, clock, tasks},
    transport::{
        ByteStream, ConnectError, Connection, Dialer, SendError, SharedConnection, address_uri,
    },
};

/// The longest that a single request to the registry may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The registry's addresses and the connections to them, shared by all of a client.
#[derive(Debug)]
pub(crate) struct RegistryLink {
    /// In a random order.
    addresses: Box<[Address]>,
    choice: Mutex<AddressChoice>,
    failback_interval: Duration,
    credentials: Option<Arc<ActiveCredentials>>,
    renewal: Mutex<RenewalState>,
    backoff: Backoff,
    state: watch::Sender<RegistryState>,
    /// Counts the recoveries of the primary address, and the moves to renewed credentials.
    moves: watch::Sender<u64>,
    this: Weak<Self>,
    /// Stops the background tasks.
    ended: CancellationToken,
    _end: DropGuard,
}

/// The time in which the watches of a client move to renewed credentials. Heartbeats follow.
const RENEWAL_SPREAD: Duration = Duration::from_secs(1);

/// The delay before a stream moves to another connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MoveDelay {
    /// Back to the primary address.
    Failback(Duration),
    /// To a connection with renewed credentials.
    Renewal(Duration),
}

impl MoveDelay {
    /// The delay of a watch.
    pub(crate) fn of_watch(self) -> Duration {
        match self {
            Self::Failback(delay) | Self::Renewal(delay) => delay,
        }
    }

    /// The delay of heartbeats: watches have moved first.
    pub(crate) fn of_heartbeats(self) -> Duration {
        match self {
            Self::Failback(delay) => delay,
            Self::Renewal(_) => RENEWAL_SPREAD,
        }
    }
}

#[derive(Debug)]
struct AddressChoice {
    failback: Failback,
    /// Lives as long as the task that probes the primary address.
    probe_task: Weak<()>,
}

/// The plan to move to renewed credentials.
#[derive(Debug)]
struct RenewalState {
    plan: RenewalPlan,
    /// Lives as long as the task that follows the credentials.
    task: Weak<()>,
}

#[derive(Debug)]
struct Address {
    authority: Arc<str>,
    /// Dials over TLS if the URL has `https`.
    dialer: Dialer,
    connection: SharedConnection,
}

/// How a link dials an address.
pub(crate) struct AddressDialer {
    pub(crate) uri: Uri,
    pub(crate) dialer: Dialer,
}

/// A connection to one of the addresses.
#[derive(Clone, Debug)]
pub(crate) struct RegistryConnection {
    pub(crate) transport: Connection,
    /// The address.
    pub(crate) peer: Arc<str>,
    index: usize,
    /// The version of the credentials that requests carry at the least.
    credentials_version: u64,
}

/// The failure of a request, and the address where it failed.
#[derive(Clone, Debug)]
pub(crate) struct RequestFailure {
    /// The address.
    pub(crate) peer: Arc<str>,
    pub(crate) status: Status,
    /// The version of the credentials that the request carried.
    pub(crate) credentials_version: u64,
}

impl RegistryConnection {
    /// Returns whether streams of `other` move here: it is the primary address, or another
    /// connection to the same one.
    pub(crate) fn succeeds(&self, other: &Self) -> bool {
        let is_failback = self.index == PRIMARY && other.index != PRIMARY;
        is_failback || (self.index == other.index && !self.transport.is(&other.transport))
    }

    /// The failure of a request or stream on this connection.
    pub(crate) fn failure(&self, status: Status) -> RequestFailure {
        let peer = Arc::clone(&self.peer);
        RequestFailure { peer, status, credentials_version: self.credentials_version }
    }
}

impl RegistryLink {
    /// Creates a link to `addresses`, of which there is at least one, in a random order: the
    /// clients of a registry spread over its addresses, and over those left when one fails. The
    /// failed primary address is probed after `failback_interval` at the earliest.
    pub(crate) fn new(
        addresses: Vec<AddressDialer>,
        credentials: Option<Arc<ActiveCredentials>>,
        backoff: Backoff,
        failback_interval: Duration,
    ) -> Arc<Self> {
        let address = |AddressDialer { uri, dialer }: AddressDialer| {
            let authority = uri.authority()?.as_str().into();
            let dialer = Dialer { credentials: credentials.clone(), ..dialer };
            Some(Address { authority, dialer, connection: SharedConnection::default() })
        };
        let mut addresses: Box<[_]> = addresses.into_iter().filter_map(address).collect();
        fastrand::shuffle(&mut addresses);
        let failback = Failback::new(addresses.len(), failback_interval);
        let ended = CancellationToken::new();
        Arc::new_cyclic(|this| Self {
            addresses,
            choice: Mutex::new(AddressChoice { failback, probe_task: Weak::new() }),
            failback_interval,
            credentials,
            renewal: Mutex::new(RenewalState { plan: RenewalPlan::new(), task: Weak::new() }),
            backoff,
            state: watch::Sender::new(RegistryState::Idle),
            moves: watch::Sender::new(0),
            this: Weak::clone(this),
            _end: ended.clone().drop_guard(),
            ended,
        })
    }

    /// A new backoff for a caller.
    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }

    /// The state of the registry as users see it.
    pub(crate) fn state(&self) -> watch::Receiver<RegistryState> {
        self.state.subscribe()
    }

    /// Changes when streams have another connection to move to, each after a
    /// [delay](Self::move_delay): the primary address has recovered, or the credentials were
    /// renewed.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// The delay before a stream on `connection` moves; `None` if it stays. Clients return to a
    /// registry that has just started, and each may bring many streams. `random` is from 0 to 1.
    pub(crate) fn move_delay(
        &self,
        connection: &RegistryConnection,
        random: f64,
    ) -> Option<MoveDelay> {
        if self.choice().failback.current() != connection.index {
            let delay = (self.failback_interval / 3).mul_f64(random.clamp(0.0, 1.0));
            return (connection.index != PRIMARY).then_some(MoveDelay::Failback(delay));
        }
        let present = self.addresses[connection.index].connection.current()?;
        let is_renewed = !present.is(&connection.transport);
        is_renewed.then(|| MoveDelay::Renewal(RENEWAL_SPREAD.mul_f64(random.clamp(0.0, 1.0))))
    }

    /// Returns a connection to the address in use. If connecting fails, the next address is in use.
    /// Cancel safe.
    pub(crate) async fn connect(&self) -> Result<RegistryConnection, RequestFailure> {
        self.follow_credentials();
        self.connect_to(self.current()).await
    }

    async fn connect_to(&self, index: usize) -> Result<RegistryConnection, RequestFailure> {
        let peer = Arc::clone(&self.addresses[index].authority);
        // Read first: a change meanwhile is one after the request.
        let credentials_version = self.credentials_version();
        match self.open(index).await {
            Ok(transport) => Ok(RegistryConnection { transport, peer, index, credentials_version }),
            Err(error) => {
                let status = Status::unavailable(error.to_string());
                Err(RequestFailure { peer, status, credentials_version })
            }
        }
    }

    async fn open(&self, index: usize) -> Result<Connection, ConnectError> {
        let address = &self.addresses[index];
        let opened = address.connection.connect(&address.dialer, &address.authority).await;
        opened.inspect_err(|error| self.mark_failed(index, &error.to_string()))
    }

    /// Opens a byte stream of its own to the address in use. Cancel safe.
    pub(crate) async fn open_stream(&self) -> Result<Box<dyn ByteStream>, ConnectError> {
        self.follow_credentials();
        let address = &self.addresses[self.current()];
        let uri = address_uri(&address.dialer, &address.authority)?;
        address.dialer.open_stream(uri).await
    }

    /// The credentials of requests.
    pub(crate) fn active_credentials(&self) -> Option<&ActiveCredentials> {
        self.credentials.as_deref()
    }

    /// Sends a request of a generated client over the connection in use. Cancel safe.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        self.follow_credentials();
        let index = self.current();
        let connection = self.open(index).await.map_err(SendError::Connect)?;
        let sent = connection.clone().send_authorized(request).await;
        sent.inspect_err(|error| {
            self.addresses[index].connection.discard(&connection);
            self.mark_failed(index, &error.reason());
        })
    }

    /// Discards a connection whose stream failed, and moves on to the next address.
    pub(crate) fn fail_with(&self, connection: &RegistryConnection, reason: &str) {
        self.addresses[connection.index].connection.discard(&connection.transport);
        self.mark_failed(connection.index, reason);
    }

    /// Takes note of a response of the registry.
    pub(crate) fn mark_connected(&self, connection: &RegistryConnection) {
        if matches!(&*self.state.borrow(), RegistryState::Connected { peer } if *peer == connection.peer)
        {
            return;
        }
        // During a failback, responses come from two addresses: they must not change the state back
        // and forth.
        let in_use = self.choice().failback.current() == connection.index;
        self.state.send_if_modified(|state| {
            let news = in_use || !matches!(state, RegistryState::Connected { .. });
            if news {
                *state = RegistryState::Connected { peer: Arc::clone(&connection.peer) };
            }
            news
        });
    }

    /// Makes one attempt at a request: connects and sends it ([`Self::request_on`]).
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

    /// Sends a request, which may take [`REQUEST_TIMEOUT`]. After a failure that another address
    /// may not have, moves on to that.
    pub(crate) async fn request_on<T, F>(
        &self,
        connection: &RegistryConnection,
        request: impl FnOnce(Connection) -> F + Send,
    ) -> Result<T, RequestFailure>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send,
    {
        // Boxed, so that the futures of callers stay small.
        let request = Box::pin(request(connection.transport.clone()));
        let response = clock::within(REQUEST_TIMEOUT, request).await;
        let response = response.unwrap_or_else(|| Err(Self::timeout_status()));
        match &response {
            Err(status) => self.report_failure(connection, status),
            Ok(_) => self.mark_connected(connection),
        }
        response.map(tonic::Response::into_inner).map_err(|status| connection.failure(status))
    }

    /// Takes note of a request or stream that failed with `status`.
    pub(crate) fn report_failure(&self, connection: &RegistryConnection, status: &Status) {
        match Retryability::of(status) {
            Retryability::Retry { .. } => self.fail_with(connection, message(status)),
            Retryability::Denied(_) => self.deny(connection, message(status)),
            // A refusal is no fault of the connection, which others use.
            Retryability::Fatal(_) => self.mark_connected(connection),
        }
    }

    /// As [`report_failure`](Self::report_failure), for a stream of heartbeats: a registry that
    /// ends one for any other reason than the credentials may work at another address.
    pub(crate) fn report_stream_failure(&self, connection: &RegistryConnection, status: &Status) {
        match Retryability::of(status) {
            Retryability::Denied(_) => self.deny(connection, message(status)),
            _ => self.fail_with(connection, "a stream failed"),
        }
    }

    /// The status of a request that timed out.
    pub(crate) fn timeout_status() -> Status {
        Status::deadline_exceeded("the registry did not respond in time")
    }

    /// The address in use. Starts the task that probes the primary one, if it is needed and does
    /// not run.
    fn current(&self) -> usize {
        let mut choice = self.choice();
        if choice.failback.next_probe().is_some() && choice.probe_task.strong_count() == 0 {
            let token = Arc::new(());
            choice.probe_task = Arc::downgrade(&token);
            let link = Weak::clone(&self.this);
            let ended = self.ended.clone();
            tasks::spawn("return", async move {
                // Owned by the task: however it ends, with its runtime for example, another one can
                // start.
                let _alive = token;
                ended.run_until_cancelled(run_failback(link)).await;
            });
        }
        choice.failback.current()
    }

    /// The time of the next probe. None ends the task; the next failure starts
    /// another one.
    fn next_probe(&self) -> Option<clock::Instant> {
        let mut choice = self.choice();
        let next = choice.failback.next_probe();
        if next.is_none() {
            // Under the lock, so that a failure that comes now starts another task.
            choice.probe_task = Weak::new();
        }
        next
    }

    /// Sends the primary address a heartbeat without leases: it costs nothing, and only a registry
    /// that works answers it.
    async fn probe_primary(&self) {
        let (peer, result) = (&self.addresses[PRIMARY].authority, self.heartbeat_primary().await);
        let mut choice = self.choice();
        match result {
            Ok(()) => {
                let was_elsewhere = choice.failback.current() != PRIMARY;
                choice.failback.probe_succeeded(clock::now());
                drop(choice);
                if was_elsewhere {
                    tracing::info!(peer = &**peer, "primary registry recovered, failing back");
                }
                self.moves.send_modify(|count| *count += 1);
            }
            Err(status) => {
                choice.failback.probe_failed(clock::now(), fastrand::f64());
                drop(choice);
                tracing::debug!(
                    peer = &**peer,
                    reason = message(&status),
                    "primary registry still unreachable"
                );
            }
        }
    }

    async fn heartbeat_primary(&self) -> Result<(), Status> {
        let address = &self.addresses[PRIMARY];
        let connected = address.connection.connect(&address.dialer, &address.authority).await;
        let connection = connected.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut registry = RegistryClient::new(connection.clone());
        let heartbeat = Box::pin(registry.heartbeat(HeartbeatRequest::default()));
        let response = clock::within(REQUEST_TIMEOUT, heartbeat).await;
        let response = response.unwrap_or_else(|| Err(Self::timeout_status()));
        response.map(drop).inspect_err(|_| address.connection.discard(&connection))
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
        // No code under the lock panics.
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probes the primary address until it works or the link is dropped.
async fn run_failback(link: Weak<RegistryLink>) {
    loop {
        let Some(at) = link.upgrade().and_then(|link| link.next_probe()) else { return };
        clock::sleep_until(at).await;
        let Some(link) = link.upgrade() else { return };
        link.probe_primary().await;
    }
}
