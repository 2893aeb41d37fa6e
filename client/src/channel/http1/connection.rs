//! One connection of HTTP/1.1, with one call at a time. The task that waits for the response drives
//! it: no task of its own, and no hop between tasks. Invariant: it gets the next call only after
//! both bodies of the last one have ended.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use sync_wrapper::SyncFuture;
use tokio::{
    runtime::{Handle, Id},
    task::coop,
};
use tonic::body::Body;

use super::{
    raw_target::RawTarget,
    wire::{Received, TargetSlot, WireStream},
};
use crate::{
    runtime::{clock, tasks},
    transport::{ConnectError, Dialer, FIELDS_BYTES_MAX, FIELDS_MAX, InvalidResponse, SendError},
};

pub(super) struct Http1Connection {
    requests: SendRequest<Body>,
    target: TargetSlot,
    driver: Driver,
    received: Received,
    /// The longest time that it may be idle.
    pub(super) idle_max: Duration,
    pub(super) address: Arc<str>,
    /// The runtime that drives its socket.
    pub(super) runtime: Id,
    /// The address, as a `Host` header.
    pub(super) host: HeaderValue,
}

/// The failure of a request without a response.
pub(super) enum SendFailure {
    /// Nothing was sent.
    Unsent(Box<Request<Body>>),
    /// The connection ended before any byte of a response, and not because of the request's body.
    NoResponse(hyper::Error),
    /// Any other failure.
    Failed(SendError),
}

/// The message of hyper's error for a head over a limit. `is_parse_too_large` exists in its server
/// only.
const TOO_LARGE: &str = "message head is too large";

/// A response that is not HTTP/1.1.
#[derive(Debug, thiserror::Error)]
#[error("its response is not valid HTTP/1.1: {0}")]
struct Malformed(hyper::Error);

impl Http1Connection {
    /// Connects to `address`. Cancel safe.
    pub(super) async fn open(dialer: &Dialer, address: &str) -> Result<Self, ConnectError> {
        let bad =
            |source| ConnectError::Address { address: address.into(), source: Arc::new(source) };
        let uri: Uri = format!("http://{address}").parse().map_err(bad)?;
        let refused = |address, source| ConnectError::Refused { address, source };
        let host = HeaderValue::from_str(address)
            .map_err(|error| refused(uri.clone(), Arc::new(error)))?;
        let limit = dialer.connect_timeout;
        let stream = match clock::within(limit, dialer.connector.open(uri.clone())).await {
            Some(Ok(stream)) => stream,
            Some(Err(source)) => return Err(refused(uri, source)),
            None => return Err(ConnectError::Timeout { address: uri, limit }),
        };
        let received = Received::default();
        let target = TargetSlot::default();
        let wire = WireStream::new(TokioIo::new(stream), received.clone(), target.clone());
        let (requests, connection) = http1::Builder::new()
            .max_headers(FIELDS_MAX)
            .max_buf_size(FIELDS_BYTES_MAX)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| refused(uri, Arc::new(error)))?;
        let driver = Driver(Some(SyncFuture::new(Box::pin(connection.with_upgrades()))));
        let (address, runtime) = (address.into(), Handle::current().id());
        let idle_max = Duration::MAX;
        Ok(Self { requests, target, driver, received, idle_max, address, runtime, host })
    }

    /// Returns whether it can take a call, without waiting.
    pub(super) fn is_ready(&mut self) -> bool {
        let ended = self.driver.advance(&mut Context::from_waker(Waker::noop()));
        ended.is_pending() && self.requests.is_ready()
    }

    /// Sends a request whose URI is a path. Cancel safe: the connection can't be used afterwards.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendFailure> {
        self.received.reset();
        if let Some(target) = request.extensions().get::<RawTarget>() {
            self.target.set(request.method(), request.uri(), target);
        }
        // Unconstrained: tokio would delay a response that is there to another turn of the task.
        let mut sending = pin!(coop::unconstrained(self.requests.try_send_request(request)));
        poll_fn(|context| {
            // A running call fails if the connection ends.
            let _ended = self.driver.advance(context);
            // The driver has the waker: nothing else brings a response.
            sending.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
        .map_err(|mut failed| match failed.take_message() {
            Some(request) => SendFailure::Unsent(Box::new(request)),
            None => send_failure(failed.into_error(), self.received.bytes()),
        })
    }

    /// Sends and receives what is possible without waiting, and registers the waker.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) {
        let _ended = self.driver.advance(context);
    }

    /// Moves the connection to a task of its own until it ends.
    pub(super) fn detach(self) {
        let mut driver = self.driver;
        tasks::spawn("http1", poll_fn(move |context| driver.advance(context)));
    }
}

/// Classifies the failure of a sent request after `received` bytes of a response.
fn send_failure(error: hyper::Error, received: usize) -> SendFailure {
    if received == 0 && !error.is_user() {
        return SendFailure::NoResponse(error);
    }
    SendFailure::Failed(if error.is_parse() && error.to_string() == TOO_LARGE {
        let is_long = received >= FIELDS_BYTES_MAX;
        SendError::InvalidResponse(if is_long {
            InvalidResponse::HeadTooLong
        } else {
            InvalidResponse::TooManyFields
        })
    } else if error.is_parse() {
        SendError::ConnectionLost(Malformed(error).into())
    } else {
        SendError::ConnectionLost(error.into())
    })
}

/// The future that drives a connection; dropped at its end.
struct Driver(Option<SyncFuture<ConnectionFuture>>);

type ConnectionFuture = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl Driver {
    /// Makes progress; ready once the connection has ended.
    fn advance(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(driver) = &mut self.0 else { return Poll::Ready(()) };
        let ended = ready!(Pin::new(driver).poll(context));
        self.0 = None;
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
        Poll::Ready(())
    }
}
