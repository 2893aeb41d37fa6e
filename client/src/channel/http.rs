//! The face of a channel for plain HTTP: answers as they are, and failures that say what went wrong. It
//! must never make an answer up.

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

/// A channel to a service for requests of plain HTTP: each goes to an instance of its own choice, as with
/// [`BalancedChannel`], of which this is one. With the feature `http`.
///
/// - Of a request's URI the path and query count, or its [`RawTarget`](crate::RawTarget) over HTTP/1.1; the instance's address takes the place of the rest.
///   `Host` is left as it is, and is the instance's address where there is none. Headers that are for one
///   connection alone (`Connection` and what it names) are the caller's business; so an upgrade passes
///   through.
/// - Instances are spoken to in HTTP/1.1, over as many connections as there are calls at once;
///   [`http2`](Self::http2) changes that.
/// - An answer with a status of 500 and above is a failure of the instance. What says that it is not
///   served now (429, 502, 503 and 504) is sent again where
///   [`retry_idempotent`](Self::retry_idempotent) allows it, as is a request whose connection is lost.
/// - Where an instance closed a kept connection before any byte of a response, a request whose method is
///   idempotent (RFC 9110, 9.2.2), or any where `retry_idempotent` is set, goes over a new connection to the
///   same instance, once, if its body is at most 64 KiB. That costs nothing of the budget and is not held
///   against the instance. Other requests fail then, and for 60 s such requests go over new connections to
///   that instance. Connections are kept for 4 s, or three quarters of the instance's
///   `Keep-Alive: timeout`.
/// - A response may have 256 KiB of head and, in HTTP/1.1, 256 fields. One beyond that fails with
///   [`FailureKind::HeadTooLarge`], is not sent again, and is not held against the instance.
/// - The timeout is that of [`CallTimeout`](crate::CallTimeout). What is left of it is told to the
///   instance in `x-waypost-timeout-ms`; which attempt it is, after the first, in
///   `x-waypost-previous-attempts`.
/// - Which instance answered is an extension of the answer: [`ServedBy`](crate::ServedBy).
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
/// let answer = orders.call(request.body(Body::empty())?).await?;
/// if let Some(by) = answer.extensions().get::<ServedBy>() {
///     println!("{} from {}", answer.status(), by.instance().id);
/// }
/// # Ok(())
/// # }
/// ```
pub type HttpChannel = BalancedChannel<Http>;

impl Service {
    /// A channel for requests of plain HTTP to this service. With the feature `http`.
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
    /// The same with instances that are spoken to in HTTP/2, without asking them first ("prior
    /// knowledge"): all calls to one share a connection.
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
    /// The same calls to another selection of the same service's instances, or by another policy: the
    /// connections and the budget of what is sent again stay shared.
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

/// What a caller gets where no attempt came to more than this.
fn into_result(call: &Call, failure: AttemptFailure) -> Result<Response<Body>, HttpChannelError> {
    let (kind, message) = match failure {
        AttemptFailure::Unavailable(answer) => return Ok(*answer),
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

/// Why a request through an [`HttpChannel`] got no answer.
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

/// What kind of failure a [`HttpChannelError`] is.
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
    /// No instance has seen the request: there is none, none was reached, or who was reached refused it.
    Unsent,
    /// All instances that could be reached have as many calls in flight as they may. None has seen it.
    LimitReached,
    /// The connection was lost before an answer: the instance may have served it.
    ConnectionLost,
    /// The instance served it, and its response can't be passed on: its head is over 256 KiB or, in
    /// HTTP/1.1, over 256 fields.
    HeadTooLarge,
    /// The timeout has passed: an instance may have served it.
    TimedOut,
}

impl HttpChannelError {
    /// What kind of failure it is.
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

    /// How often the request was sent to where it may have been received.
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

    /// The instance that it was meant for last.
    ///
    /// ```
    /// # use waypost_client::HttpChannelError;
    /// fn whom(failed: &HttpChannelError) -> &str {
    ///     failed.instance().map_or("nobody", |instance| &instance.id)
    /// }
    /// # let _ = whom;
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

/// The answer to a request, to come. Dropping it cancels the call.
///
/// ```
/// use tower::Service as _;
/// use waypost_client::{HttpFuture, Service};
///
/// let request = http::Request::new(tonic::body::Body::empty());
/// let answer: HttpFuture = Service::fixed([]).http_channel().call(request);
/// # drop(answer);
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
