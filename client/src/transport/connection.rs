//! One HTTP/2 connection to one address, which generated clients can call. It never reconnects and
//! never sends twice, and tells a request that nobody saw from one that may have been served.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri, header, uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioTimer;
use tonic::{Status, body::Body};

use super::{
    connector::Connector,
    response_limits::{HEADER_LIST_MAX, InvalidResponse},
};
use crate::runtime::{
    clock,
    tasks::{self, Executor},
};

const USER_AGENT: &str = concat!("waypost-client/", env!("CARGO_PKG_VERSION"));

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) connector: Connector,
    /// The longest that opening a connection takes.
    pub(crate) connect_timeout: Duration,
    /// How long a connection is silent before it is asked whether it lives.
    pub(crate) keep_alive_interval: Duration,
    /// How long the answer may take.
    pub(crate) keep_alive_timeout: Duration,
    /// Whom calls say they are for, where that is not the address.
    pub(crate) origin: Option<Uri>,
}

/// Why no connection was made.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{address} is no address")]
    Address {
        address: Box<str>,
        #[source]
        source: Arc<uri::InvalidUri>,
    },
    #[error("{address} did not take a connection within {limit:?}")]
    Timeout { address: Uri, limit: Duration },
    #[error("{address} did not take a connection within {limit:?}, half of the call's time")]
    CallDeadline { address: Box<str>, limit: Duration },
    #[error("{address} took no connection: {source}")]
    Refused {
        address: Uri,
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    #[error("{address} does not speak HTTP/2: {}", root_cause(&**source))]
    Handshake {
        address: Uri,
        #[source]
        source: Arc<hyper::Error>,
    },
    #[error("{address} closes connections at once")]
    Closed { address: Box<str> },
}

impl Default for Dialer {
    fn default() -> Self {
        Self {
            connector: Connector::tcp(),
            connect_timeout: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(2),
            origin: None,
        }
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// There is no connection to send it over.
    Connect(ConnectError),
    /// Nobody has begun to serve it, and nobody will: it can be sent elsewhere.
    Unsent,
    /// It may have been received.
    ConnectionLost(Box<dyn Error + Send + Sync>),
    /// The connection had been kept, and the peer closed it before any byte of a response: most likely
    /// before it received the request.
    Stale(Box<dyn Error + Send + Sync>),
    /// It was served, and the response is one that can't be passed on.
    InvalidResponse(InvalidResponse),
}

impl Dialer {
    /// Connects to `address`, an `http` URI. Cancel safe: nothing is left behind.
    pub(crate) async fn open(&self, address: Uri) -> Result<Connection, ConnectError> {
        let opened = clock::within(self.connect_timeout, self.handshake(address.clone())).await;
        opened.unwrap_or(Err(ConnectError::Timeout { address, limit: self.connect_timeout }))
    }

    async fn handshake(&self, address: Uri) -> Result<Connection, ConnectError> {
        let stream = self
            .connector
            .open(address.clone())
            .await
            .map_err(|source| ConnectError::Refused { address: address.clone(), source })?;
        let (requests, connection) = http2::Builder::new(Executor)
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .max_header_list_size(HEADER_LIST_MAX)
            .handshake(stream)
            .await
            .map_err(|source| ConnectError::Handshake {
                address: address.clone(),
                source: Arc::new(source),
            })?;
        tasks::spawn("connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        let origin = self.origin.clone().unwrap_or_else(|| address.clone());
        Ok(Connection { requests, address: Arc::new(address), origin })
    }
}

/// A connection. Clones share it; it closes when the last one and the last call on it are gone.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    requests: http2::SendRequest<Body>,
    /// Also tells connections to the same address apart: each has its own allocation.
    address: Arc<Uri>,
    /// Whom calls are for.
    origin: Uri,
}

impl Connection {
    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.address, &other.address)
    }

    /// Sends `request`, of whose URI only the path is used. Cancel safe: dropping resets the call.
    pub(crate) async fn send(
        mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        if self.is_closed() {
            return Err(SendError::Unsent);
        }
        *request.uri_mut() = self.target(request.uri());
        request
            .headers_mut()
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(USER_AGENT));
        let sent = self.requests.try_send_request(request).await;
        let response = sent.map_err(|mut error| {
            if error.take_message().is_some() || is_refusal(error.error()) {
                SendError::Unsent
            } else if is_invalid_response(error.error()) {
                SendError::InvalidResponse(InvalidResponse::Http2)
            } else {
                SendError::ConnectionLost(error.into_error().into())
            }
        })?;
        InvalidResponse::check_head(response.headers()).map_err(SendError::InvalidResponse)?;
        Ok(response)
    }

    fn target(&self, path: &Uri) -> Uri {
        let mut parts = uri::Parts::default();
        parts.scheme = self.origin.scheme().cloned();
        parts.authority = self.origin.authority().cloned();
        parts.path_and_query =
            path.path_and_query().cloned().or_else(|| Some(uri::PathAndQuery::from_static("/")));
        Uri::from_parts(parts).expect("scheme and authority of a URI, with a path")
    }
}

/// The future of a call.
pub(crate) type CallFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// So that generated clients can call the registry over it. A failure of the connection is an
/// answer too, with status `UNAVAILABLE`.
impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = self.clone();
        Box::pin(async move {
            let address = Arc::clone(&connection.address);
            Ok(match connection.send(request).await {
                Ok(response) => response.map(Body::new),
                Err(SendError::Connect(error)) => {
                    Status::unavailable(error.to_string()).into_http()
                }
                Err(SendError::Unsent) => unsent_status(&address).into_http(),
                Err(SendError::ConnectionLost(error) | SendError::Stale(error)) => {
                    lost_status(&address, &*error).into_http()
                }
                Err(SendError::InvalidResponse(reason)) => reason.status(&address).into_http(),
            })
        })
    }
}

/// Whether the peer said that it has not begun to serve the call: by a reset that says so, or by a
/// goodbye to the connection that leaves the call out (RFC 9113, 8.7).
fn is_refusal(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|cause| {
        let is_refused = cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (cause.is_go_away() || is_refused)
    })
}

/// Returns whether this side reset the call alone, for what the peer sent: a head over h2's bound, or one that
/// is not valid.
fn is_invalid_response(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|cause| cause.is_library() && cause.is_reset())
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// The status of a call that nobody has begun to serve.
pub(crate) fn unsent_status(address: &impl std::fmt::Display) -> Status {
    Status::unavailable(format!("{address} did not take the call"))
}

/// The status of a call that was sent and got no answer.
pub(crate) fn lost_status(
    address: &impl std::fmt::Display,
    error: &(dyn Error + 'static),
) -> Status {
    let reason = root_cause(error);
    Status::unavailable(format!("the call to {address} got no answer: {reason}"))
}

/// What is at the bottom of an error: the layers above it tell a user nothing.
fn root_cause<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
