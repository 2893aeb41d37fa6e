//! One HTTP/2 connection to one address, which generated clients can call. Never reconnects and
//! never sends a request twice. Distinguishes requests that no peer has begun to serve from those
//! that may have been served.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderValue, Request, Response, Uri, header,
    uri::{self, Scheme},
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioTimer;
use tonic::{Status, body::Body};

use super::{
    connector::{ByteStream, Connector},
    response_limits::{HEADER_LIST_MAX, InvalidResponse},
};
use crate::{
    credentials::{ActiveCredentials, TokenError},
    runtime::{
        clock,
        tasks::{self, Executor},
    },
};

const USER_AGENT: &str = concat!("waypost-client/", env!("CARGO_PKG_VERSION"));

/// The settings of new connections.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) connector: Connector,
    /// The longest that connecting may take.
    pub(crate) connect_timeout: Duration,
    /// The longest silence of a connection before a keep-alive ping.
    pub(crate) keep_alive_interval: Duration,
    /// The longest wait for the ping's answer.
    pub(crate) keep_alive_timeout: Duration,
    /// The scheme and authority of requests, if they are not the address.
    pub(crate) origin: Option<Uri>,
    /// The scheme of addresses.
    pub(crate) scheme: Scheme,
    pub(crate) opening: OpenMoment,
    /// The credentials that requests carry. For the registry alone, never for instances.
    pub(crate) credentials: Option<Arc<ActiveCredentials>>,
}

/// The moment from which a connection is open.
#[derive(Clone, Debug)]
pub(crate) enum OpenMoment {
    /// The client has sent its side of the handshake.
    Sent,
    /// The server has sent a byte, after it has judged the client's certificate.
    #[cfg(feature = "tls")]
    FirstByte {
        /// The name that the server proves.
        server: Arc<str>,
    },
}

/// An error of connecting.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{address} is not a valid address")]
    Address {
        address: Box<str>,
        #[source]
        source: Arc<uri::InvalidUri>,
    },
    #[error("connecting to {address} took longer than {limit:?}")]
    Timeout { address: Uri, limit: Duration },
    #[error(
        "connecting to {address} took longer than {limit:?}, half of the call's remaining time"
    )]
    CallDeadline { address: Box<str>, limit: Duration },
    #[error("connecting to {address} failed: {source}")]
    Refused {
        address: Uri,
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    #[error("the HTTP/2 handshake with {address} failed: {}", root_cause(&**source))]
    Handshake {
        address: Uri,
        #[source]
        source: Arc<hyper::Error>,
    },
    #[error("{address} closed the connection at once")]
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
            scheme: Scheme::HTTP,
            opening: OpenMoment::Sent,
            credentials: None,
        }
    }
}

/// The error of a request without response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Connecting failed: nothing was sent.
    Connect(ConnectError),
    /// No peer has begun to serve the request, or will: it can be sent elsewhere.
    Unsent,
    /// The connection was lost: the request may have been received.
    ConnectionLost(Box<dyn Error + Send + Sync>),
    /// The peer closed a reused connection before any byte of a response: most likely before it
    /// received the request.
    Stale(Box<dyn Error + Send + Sync>),
    /// The request was served, but its response can't be passed on.
    InvalidResponse(InvalidResponse),
}

impl SendError {
    /// The reason, for a user who knows the address.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Connect(ConnectError::Refused { source, .. }) => {
                root_cause(&**source).to_string()
            }
            Self::Connect(error) => error.to_string(),
            Self::Unsent => "the connection accepted no request".to_owned(),
            Self::ConnectionLost(error) | Self::Stale(error) => root_cause(&**error).to_string(),
            Self::InvalidResponse(reason) => reason.to_string(),
        }
    }
}

impl Dialer {
    /// Connects to `address`, an `http` URI. Cancel safe: nothing stays behind.
    pub(crate) async fn open(&self, address: Uri) -> Result<Connection, ConnectError> {
        let opened = clock::within(self.connect_timeout, self.handshake(address.clone())).await;
        opened.unwrap_or(Err(ConnectError::Timeout { address, limit: self.connect_timeout }))
    }

    /// Opens a byte stream to `address`, for a caller that speaks HTTP/2 itself. Cancel safe.
    pub(crate) async fn open_stream(
        &self,
        address: Uri,
    ) -> Result<Box<dyn ByteStream>, ConnectError> {
        let opened =
            clock::within(self.connect_timeout, self.connector.open(address.clone())).await;
        match opened {
            Some(opened) => opened.map_err(|source| ConnectError::Refused { address, source }),
            None => Err(ConnectError::Timeout { address, limit: self.connect_timeout }),
        }
    }

    async fn handshake(&self, address: Uri) -> Result<Connection, ConnectError> {
        // Read first: later ones make the connection outdated.
        let credentials_version =
            self.credentials.as_ref().map_or(0, |credentials| credentials.current_version());
        let refused = |source| ConnectError::Refused { address: address.clone(), source };
        let stream = self.connector.open(address.clone()).await.map_err(refused)?;
        let requests = match &self.opening {
            OpenMoment::Sent => self.start_http2(stream, &address).await?,
            #[cfg(feature = "tls")]
            OpenMoment::FirstByte { server } => {
                let (stream, first_read) = super::first_read::FirstRead::new(stream);
                let requests = self.start_http2(Box::new(stream), &address).await?;
                let closed = |_| ConnectError::Closed { address: address.to_string().into() };
                let reason = |error| super::registry_tls::in_words(error, server).into();
                first_read.await.map_err(closed)?.map_err(|error| refused(reason(error)))?;
                requests
            }
        };
        let origin = self.origin.clone().unwrap_or_else(|| address.clone());
        let (address, credentials) = (Arc::new(address), self.credentials.clone());
        Ok(Connection { requests, address, origin, credentials, credentials_version })
    }

    /// Starts HTTP/2 on a stream, and the task that drives it.
    async fn start_http2(
        &self,
        stream: Box<dyn ByteStream>,
        address: &Uri,
    ) -> Result<http2::SendRequest<Body>, ConnectError> {
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
        Ok(requests)
    }
}

/// A connection. Clones share it. It closes when the last clone and the last call on it are gone.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    requests: http2::SendRequest<Body>,
    /// Identifies the connection, too: each has an allocation of its own.
    address: Arc<Uri>,
    /// The scheme and authority of requests.
    origin: Uri,
    credentials: Option<Arc<ActiveCredentials>>,
    /// The version of the credentials with which it was opened.
    credentials_version: u64,
}

impl Connection {
    /// Returns whether the credentials have changed since it was opened.
    pub(crate) fn is_outdated(&self) -> bool {
        let credentials = self.credentials.as_ref();
        credentials.is_some_and(|active| active.current_version() > self.credentials_version)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.address, &other.address)
    }

    /// Sends `request`, of whose URI only path and query are used. Cancel safe: dropping the future
    /// resets the call.
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

    /// Sends a request to the registry, with the token. Without one, the response has the status of
    /// a registry that refuses the credentials.
    pub(crate) async fn send_authorized(
        self,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, SendError> {
        if let Some(credentials) = &self.credentials
            && let Err(error) = credentials.authorize(request.headers_mut())
        {
            return Ok(no_token_status(&error).into_http());
        }
        Ok(self.send(request).await?.map(Body::new))
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

/// Lets generated clients call the registry over the connection, with its token. A failed
/// connection gives a response with status `UNAVAILABLE`.
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
            Ok(match connection.send_authorized(request).await {
                Ok(response) => response,
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

/// Returns whether the peer has certainly not begun to serve the call: it sent REFUSED_STREAM, or a
/// GOAWAY that excludes the call (RFC 9113, 8.7).
fn is_refusal(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|cause| {
        let is_refused = cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (cause.is_go_away() || is_refused)
    })
}

/// Returns whether this side reset the call because of the response: its head is over h2's limit or
/// invalid.
fn is_invalid_response(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|cause| cause.is_library() && cause.is_reset())
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// The status of a call to the registry that has no token.
fn no_token_status(error: &TokenError) -> Status {
    Status::unauthenticated(format!("no request was sent without a token: {error}"))
}

/// The status of a call that no peer has begun to serve.
pub(crate) fn unsent_status(address: &impl std::fmt::Display) -> Status {
    Status::unavailable(format!("{address} did not accept the call"))
}

/// The status of a call that was sent and has no response.
pub(crate) fn lost_status(
    address: &impl std::fmt::Display,
    error: &(dyn Error + 'static),
) -> Status {
    let reason = root_cause(error);
    Status::unavailable(format!("the connection to {address} was lost before a response: {reason}"))
}

/// Returns the innermost source of an error. The layers above it mean nothing to a user.
fn root_cause<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
