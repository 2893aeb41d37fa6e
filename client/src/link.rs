//! The way to the registry: several addresses, one used at a time, the next one after a failure. It
//! never waits between attempts and never repeats a request: its callers do both.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use tonic::Status;

use crate::{
    backoff::Backoff,
    clock,
    connection::{Connection, Dialer},
    refusal::Verdict,
    slot::Slot,
};

/// The longest that a single request to the registry may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The registry, as one client reaches it.
#[derive(Debug)]
pub(crate) struct Link {
    addresses: Box<[Address]>,
    /// The address in use. Many may move it on at once; where it lands matters little.
    current: AtomicUsize,
    dialer: Dialer,
    backoff: Backoff,
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

impl Link {
    /// A way to `addresses`, of which there is at least one. Begins at a random one, so that the
    /// clients of a registry spread over its addresses.
    pub(crate) fn new(addresses: &[Uri], dialer: Dialer, backoff: Backoff) -> Self {
        let addresses: Box<[_]> = addresses
            .iter()
            .filter_map(Uri::authority)
            .map(|authority| Address {
                authority: authority.as_str().into(),
                slot: Slot::default(),
            })
            .collect();
        let current = AtomicUsize::new(fastrand::usize(..addresses.len().max(1)));
        Self { addresses, current, dialer, backoff }
    }

    /// A backoff for one of the callers.
    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff.clone()
    }

    /// A connection to the address in use. Where it takes none, the next one is in use. Cancel
    /// safe.
    pub(crate) async fn reach(&self) -> Result<Reached, Missed> {
        let index = self.current.load(Ordering::Relaxed) % self.addresses.len();
        let address = &self.addresses[index];
        match address.slot.connection(&self.dialer, &address.authority).await {
            Ok(connection) => {
                Ok(Reached { connection, peer: Arc::clone(&address.authority), index })
            }
            Err(error) => {
                self.move_on(index);
                let status = Status::unavailable(error.to_string());
                Err(Missed { peer: Arc::clone(&address.authority), status })
            }
        }
    }

    /// Lets go of a connection on which something failed, and uses the next address.
    pub(crate) fn leave(&self, reached: &Reached) {
        self.addresses[reached.index].slot.forget(&reached.connection);
        self.move_on(reached.index);
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
        if let Err(status) = &answer
            && Verdict::of(status).is_transient()
        {
            self.leave(reached);
        }
        let missed = |status| Missed { peer: Arc::clone(&reached.peer), status };
        answer.map(tonic::Response::into_inner).map_err(missed)
    }

    /// The status of a request whose time is over.
    pub(crate) fn late() -> Status {
        Status::deadline_exceeded("the registry took too long to answer")
    }

    fn move_on(&self, from: usize) {
        let next = (from + 1) % self.addresses.len();
        // Fails where another caller has moved it on already: then there is nothing to do.
        let _ = self.current.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}
