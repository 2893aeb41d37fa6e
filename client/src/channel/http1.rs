//! One connection of HTTP/1.1, which has one call at a time and is driven by whoever waits for that call:
//! no task of its own, and no hop between tasks for an answer. It must never be given to another call
//! before both bodies of the one before have ended.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use http::{HeaderValue, Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use sync_wrapper::SyncFuture;
use tokio::{
    runtime::{Handle, Id},
    task::coop,
};
use tonic::body::Body;

use super::raw_target::{RawTarget, Slot, TargetStream};
use crate::{
    clock,
    connection::{ConnectError, Dialer},
    tasks,
};

pub(super) struct Http1 {
    requests: SendRequest<Body>,
    target: Slot,
    driver: Driver,
    pub(super) address: Arc<str>,
    /// The runtime that moves its bytes.
    pub(super) runtime: Id,
    /// The address, as a header.
    pub(super) host: HeaderValue,
}

/// A request that got no answer.
pub(super) struct Unanswered {
    /// Where nothing of it was sent.
    pub(super) request: Option<Request<Body>>,
    pub(super) error: hyper::Error,
}

impl Http1 {
    /// Connects to `address`. Cancel safe: nothing is left behind.
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
        let target = Slot::default();
        let stream = TargetStream::new(stream, target.clone());
        let (requests, connection) =
            http1::handshake(stream).await.map_err(|error| refused(uri, Arc::new(error)))?;
        let driver = Driver(Some(SyncFuture::new(Box::pin(connection.with_upgrades()))));
        let (address, runtime) = (address.into(), Handle::current().id());
        Ok(Self { requests, target, driver, address, runtime, host })
    }

    /// Whether it can take a call, as far as is known without waiting.
    pub(super) fn is_ready(&mut self) -> bool {
        let ended = self.driver.advance(&mut Context::from_waker(Waker::noop()));
        ended.is_pending() && self.requests.is_ready()
    }

    /// Sends a request, whose URI is a path. Cancel safe; the connection is of no use then.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Unanswered> {
        if let Some(target) = request.extensions().get::<RawTarget>() {
            self.target.set(request.method(), request.uri(), target);
        }
        // Unconstrained: tokio would let an answer that is there wait for another turn of the task.
        let mut answered = pin!(coop::unconstrained(self.requests.try_send_request(request)));
        poll_fn(|context| {
            // A call that is under way fails as the connection ends.
            let _ended = self.driver.advance(context);
            // It has the waker: nothing else brings an answer.
            answered.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
        .map_err(|mut failed| Unanswered {
            request: failed.take_message(),
            error: failed.into_error(),
        })
    }

    /// Sends and receives what can be without waiting, and has the task woken that waits.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) {
        let _ended = self.driver.advance(context);
    }

    /// Goes on in a task of its own until it ends.
    pub(super) fn detach(self) {
        let mut driver = self.driver;
        tasks::spawn("http1", poll_fn(move |context| driver.advance(context)));
    }
}

/// What moves the bytes of a connection; gone once that has ended.
struct Driver(Option<SyncFuture<Served>>);

type Served = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl Driver {
    /// Goes on as far as it can; ready once the connection has ended.
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
