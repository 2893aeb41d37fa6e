//! The addresses of a test: services in this process, over pipes, and otherwise TCP. Invariant: no
//! connection outlives the service at its address.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Request, Response, Uri};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::{
    runtime::tasks::{self, Executor},
    transport::{ByteStream, Connector},
};

/// The capacity of each direction of a pipe.
const PIPE_BYTES: usize = 64 * 1024;

/// The service at an address.
pub(super) type AddressService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// All addresses with a service.
#[derive(Debug)]
pub(super) struct Network {
    addresses: Mutex<BTreeMap<String, AddressState>>,
    tcp: Connector,
}

/// The state of an address.
#[derive(Debug)]
enum AddressState {
    /// A service, and the token that ends its connections.
    Open { served: AddressService, end: CancellationToken },
    /// The service was stopped.
    Closed,
}

impl Network {
    pub(super) fn new() -> Self {
        Self { addresses: Mutex::default(), tcp: Connector::tcp() }
    }

    /// Serves at `address` from now on; ends an earlier service there.
    pub(super) fn open(&self, address: &str, served: AddressService) {
        self.put(address, AddressState::Open { served, end: CancellationToken::new() });
    }

    /// Breaks all connections to `address`, and refuses new ones.
    pub(super) fn close(&self, address: &str) {
        self.put(address, AddressState::Closed);
    }

    /// Returns whether the service at `address` was stopped.
    pub(super) fn is_closed(&self, address: &str) -> bool {
        matches!(self.lock().get(address), Some(AddressState::Closed))
    }

    /// Connects to `uri`.
    pub(super) async fn connect(
        &self,
        uri: Uri,
    ) -> Result<Box<dyn ByteStream>, Arc<dyn Error + Send + Sync>> {
        let address = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        // Copied first: nothing is spawned under the lock.
        let state = match self.lock().get(address) {
            Some(AddressState::Open { served, end }) => Some((served.clone(), end.clone())),
            Some(AddressState::Closed) => {
                return Err(Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
            }
            None => None,
        };
        match state {
            Some((served, end)) => Ok(Box::new(TokioIo::new(pipe(served, end)))),
            None => self.tcp.open(uri).await,
        }
    }

    fn put(&self, address: &str, state: AddressState) {
        let before = self.lock().insert(address.to_owned(), state);
        if let Some(AddressState::Open { end, .. }) = before {
            end.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, AddressState>> {
        // No code under the lock panics.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates a connection to `served`, which lives until `end`.
fn pipe(served: AddressService, end: CancellationToken) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let service = service_fn(move |request: Request<Incoming>| {
        served.clone().oneshot(request.map(Body::new))
    });
    let connection = http2::Builder::new(Executor)
        .max_concurrent_streams(None)
        .serve_connection(TokioIo::new(theirs), service);
    tasks::spawn("fake", async move {
        // An error ends only this connection, which may be what the test wants.
        let _ended = end.run_until_cancelled(connection).await;
    });
    ours
}
