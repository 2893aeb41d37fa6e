//! The channel for plain HTTP: passes responses on, and reports failures as errors. Never invents a
//! response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Code, body::Body};

use super::{balanced::BalancedChannel, call::Call, failure::AttemptFailure, protocol::Http};
use crate::{
    channel::http1::Pool, correlation, endpoint::Endpoint, proto::Instance, runtime::clock,
    service::Service,
};

/// A channel to a service for requests of plain HTTP: each goes to an instance of its own, as with
/// [`BalancedChannel`]. With the feature `http`.
///
/// - Of a request's URI, the path and query count, or over HTTP/1.1 its
///   [`RawTarget`](crate::RawTarget); the instance's address replaces the rest. `Host` stays, and
///   defaults to the instance's address. Hop-by-hop headers (`Connection` and the fields that it
///   names) are up to the caller, so an upgrade passes.
/// - Requests use HTTP/1.1, over as many connections as there are parallel calls;
///   [`http2`](Self::http2) changes that.
/// - A response with a status of 500 and above is a failure of the instance. One that states that
///   the request is not served now (429, 502, 503 and 504) is retried if
///   [`retry_idempotent`](Self::retry_idempotent) allows it, as is a request whose connection is
///   lost.
/// - If an instance closed a kept connection before any byte of a response, the request goes over a
///   new connection to the same instance, once, if its body is at most 64 KiB, and its method is
///   idempotent (RFC 9110, 9.2.2) or `retry_idempotent` is set. That is free of the budget, and no
///   failure of the instance. Other requests fail then; for 60 s, such requests use new connections
///   to that instance. Connections are kept for 4 s, or three quarters of the instance's
///   `Keep-Alive: timeout`.
/// - A response may have a head of 256 KiB and, in HTTP/1.1, 256 fields. One beyond that fails with
///   [`FailureKind::HeadTooLarge`], is not retried, and is no failure of the instance.
/// - The timeout is [`CallTimeout`](crate::CallTimeout). The instance gets the remaining time in
///   `x-waypost-timeout-ms`, and after the first attempt the number of previous ones in
///   `x-waypost-previous-attempts`.
/// - The response has an extension that names its instance: [`ServedBy`](crate::ServedBy).
///
/// ```
/// use std::time::Duration;
/// use http::Request;
/// use tonic::body::Body;
/// use tower::Service as _;
/// use waypost_client::{ServedBy, CallTimeout, Client};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://127.0.0.1:7510")?;
/// let mut orders = client.service("orders").http_channel();
/// let request = Request::get("/v1/orders/7").extension(CallTimeout(Duration::from_secs(2)));
/// let response = orders.call(request.body(Body::empty())?).await?;
/// if let Some(by) = response.extensions().get::<ServedBy>() {
///     println!("{} from {}", response.status(), by.instance().id);
/// }
/// # Ok(())
/// # }
/// ```
pub type HttpChannel = BalancedChannel<Http>;

impl Service {
    /// Creates a channel for requests of plain HTTP to this service. With the feature `http`.
    ///
    /// ```
    /// # use waypost_client::Service;
    /// let channel = Service::fixed([]).http_channel();
    /// # drop(channel);
    /// ```
    #[must_use]
    pub fn http_channel(&self) -> HttpChannel {
        let pool = Pool::new(self.dialer());
        BalancedChannel::new(self.clone(), Some(pool))
    }
}

impl HttpChannel {
    /// Uses HTTP/2 without negotiation ("prior knowledge"): all calls to an instance share a
    /// connection.
    ///
    /// ```
    /// use waypost_client::Service;
    ///
    /// let channel = Service::fixed([]).http_channel().http2();
    /// # drop(channel);
    /// ```
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.pool = None;
        self
    }
}

impl<P: super::Protocol> BalancedChannel<P> {
    /// Calls another selection of the same service's instances, or with another policy. The
    /// connections and the retry budget stay shared.
    ///
    /// ```
    /// use waypost_client::{Filter, Service};
    ///
    /// let orders = Service::fixed([]);
    /// let all = orders.http_channel();
    /// let second = Filter { versions: vec!["2".into()], ..Filter::default() };
    /// let new_ones = all.clone().with_service(&orders.with_filter(second));
    /// # drop((all, new_ones));
    /// ```
    #[must_use]
    pub fn with_service(mut self, service: &Service) -> Self {
        self.service = service.clone();
        self
    }
}

impl tower::Service<Request<Body>> for BalancedChannel<Http> {
    type Response = Response<Body>;
    type Error = HttpChannelError;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        correlation::pass_on(request.headers_mut());
        let channel = self.clone();
        HttpFuture(Box::pin(async move {
            let call = Call::new::<Http>(request, clock::now());
            channel.run(&call).await.or_else(|failure| into_result(&call, failure))
        }))
    }
}

/// Returns the caller's result for a call that failed.
fn into_result(call: &Call, failure: AttemptFailure) -> Result<Response<Body>, HttpChannelError> {
    let (kind, message) = match failure {
        AttemptFailure::Unavailable(response) => return Ok(*response),
        AttemptFailure::NoInstance(status) if status.code() == Code::ResourceExhausted => {
            (FailureKind::LimitReached, status.message().into())
        }
        AttemptFailure::NoInstance(status)
        | AttemptFailure::Connect(status)
        | AttemptFailure::Unsent(status) => (FailureKind::Unsent, status.message().into()),
        AttemptFailure::ConnectionLost(status) => {
            (FailureKind::ConnectionLost, status.message().into())
        }
        AttemptFailure::InvalidResponse(status) => {
            (FailureKind::HeadTooLarge, status.message().into())
        }
        AttemptFailure::TimedOut => (FailureKind::TimedOut, "the call's timeout has passed".into()),
    };
    Err(HttpChannelError { kind, message, attempts: call.sent(), endpoint: call.tried().latest() })
}

/// The reason why a request through an [`HttpChannel`] got no response.
///
/// ```
/// use tower::Service as _;
/// use waypost_client::{FailureKind, Service};
///
/// # #[tokio::main]
/// # async fn main() {
/// let request = http::Request::new(tonic::body::Body::empty());
/// let failed = Service::fixed([]).http_channel().call(request).await.unwrap_err();
/// assert_eq!(failed.kind(), FailureKind::Unsent);
/// assert_eq!(failed.attempts(), 0);
/// # }
/// ```
#[derive(Clone, thiserror::Error)]
#[error("{message}")]
pub struct HttpChannelError {
    kind: FailureKind,
    message: Box<str>,
    attempts: u32,
    endpoint: Option<Arc<Endpoint>>,
}

/// The kind of an [`HttpChannelError`].
///
/// ```
/// use waypost_client::FailureKind;
///
/// fn status(kind: FailureKind) -> u16 {
///     match kind {
///         FailureKind::ConnectionLost => 502,
///         FailureKind::TimedOut => 504,
///         _ => 503,
///     }
/// }
/// # let _ = status;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// No instance has received the request: there is none, none was reached, or the one that was
    /// reached refused it.
    Unsent,
    /// All reachable instances have reached the limit of calls in flight. None has received the
    /// request.
    LimitReached,
    /// The connection was lost before a response: the instance may have served it.
    ConnectionLost,
    /// The instance served it, and its response can't be passed on: its head is over 256 KiB or, in
    /// HTTP/1.1, over 256 fields.
    HeadTooLarge,
    /// The timeout has passed: an instance may have served it.
    TimedOut,
}

impl HttpChannelError {
    /// Returns the kind of failure.
    ///
    /// ```
    /// # use waypost_client::{HttpChannelError, FailureKind};
    /// fn may_have_been_served(failed: &HttpChannelError) -> bool {
    ///     !matches!(failed.kind(), FailureKind::Unsent | FailureKind::LimitReached)
    /// }
    /// # let _ = may_have_been_served;
    /// ```
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Returns the number of attempts that an instance may have received.
    ///
    /// ```
    /// # use waypost_client::HttpChannelError;
    /// fn is_safe_to_repeat(failed: &HttpChannelError) -> bool {
    ///     failed.attempts() == 0
    /// }
    /// # let _ = is_safe_to_repeat;
    /// ```
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the instance of the last attempt.
    ///
    /// ```
    /// # use waypost_client::HttpChannelError;
    /// fn instance_id(failed: &HttpChannelError) -> &str {
    ///     failed.instance().map_or("none", |instance| &instance.id)
    /// }
    /// # let _ = instance_id;
    /// ```
    #[must_use]
    pub fn instance(&self) -> Option<&Instance> {
        self.endpoint.as_deref().map(Endpoint::instance)
    }
}

impl fmt::Debug for HttpChannelError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpChannelError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// The future response to a request. Dropping it cancels the call.
///
/// ```
/// use tower::Service as _;
/// use waypost_client::{HttpFuture, Service};
///
/// let request = http::Request::new(tonic::body::Body::empty());
/// let response: HttpFuture = Service::fixed([]).http_channel().call(request);
/// # drop(response);
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct HttpFuture(
    Pin<Box<dyn Future<Output = Result<Response<Body>, HttpChannelError>> + Send>>,
);

impl Future for HttpFuture {
    type Output = Result<Response<Body>, HttpChannelError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpFuture")
    }
}
