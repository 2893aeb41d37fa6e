//! A count of the calls that a server is working on, so that it can shut down when they have ended.
//! Never delays a call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tower::{Layer, Service};

/// Counts the calls that this process's server is working on, for
/// [`Registered::drain_calls`](crate::Registered::drain_calls). Clones share the count.
///
/// It is a tower layer: a call counts from its request until the body of its response has ended or
/// was dropped, so a stream counts as long as it lasts. [`begin`](Self::begin) counts a call that
/// does not come over HTTP.
///
/// Streams that end only with the server (`grpc.health.v1.Health/Watch`, for example) should not be
/// counted, because `drain_calls` would wait for them in vain: with tonic, put the layer on single
/// services, with `tonic::service::LayerExt::named_layer`.
///
/// ```
/// use tonic::{service::LayerExt, transport::Server};
/// use waypost_client::InFlight;
///
/// # #[tokio::main]
/// # async fn main() {
/// let in_flight = InFlight::new();
/// let (_reporter, greeter) = tonic_health::server::health_reporter(); // any generated server
/// let router = Server::builder().add_service(in_flight.named_layer(greeter));
/// # drop(router);
/// assert_eq!(in_flight.count(), 0);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    calls: TaskTracker,
}

/// A call that counts until this is dropped. Created by [`InFlight::begin`].
///
/// ```
/// use waypost_client::{InFlight, OngoingCall};
///
/// let in_flight = InFlight::new();
/// let call: OngoingCall = in_flight.begin();
/// assert_eq!(in_flight.count(), 1);
/// drop(call);
/// assert_eq!(in_flight.count(), 0);
/// ```
#[derive(Debug)]
#[must_use = "the call has ended when this is dropped"]
pub struct OngoingCall {
    _token: TaskTrackerToken,
}

impl InFlight {
    /// Creates a count of zero.
    ///
    /// ```
    /// assert_eq!(waypost_client::InFlight::new().count(), 0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a call until the returned guard is dropped.
    ///
    /// ```
    /// # use waypost_client::InFlight;
    /// # let in_flight = InFlight::new();
    /// let _call = in_flight.begin();
    /// // ... answer it ...
    /// ```
    pub fn begin(&self) -> OngoingCall {
        OngoingCall { _token: self.calls.token() }
    }

    /// Returns the number of calls.
    ///
    /// ```
    /// # use waypost_client::InFlight;
    /// # let in_flight = InFlight::new();
    /// println!("{} calls in flight", in_flight.count());
    /// ```
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls.len()
    }

    /// Waits until there is no call; returns at once if there is none. Cancel safe.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// # let in_flight = waypost_client::InFlight::new();
    /// in_flight.wait_idle().await;
    /// # }
    /// ```
    pub async fn wait_idle(&self) {
        // The tracker waits only when it is closed; it goes on to count.
        self.calls.close();
        self.calls.wait().await;
    }
}

impl<S> Layer<S> for InFlight {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, in_flight: self.clone() }
    }
}

/// A service whose calls are counted. Created by [`InFlight`], which is a [`Layer`].
///
/// ```
/// use tower::Layer;
/// use waypost_client::{Counted, InFlight};
///
/// let counted: Counted<&str> = InFlight::new().layer("any service");
/// ```
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    in_flight: InFlight,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let call = Some(self.in_flight.begin());
        CountedFuture { future: self.inner.call(request), call }
    }
}

pin_project! {
    /// The future of a call to a [`Counted`] service.
    ///
    /// ```
    /// # use waypost_client::CountedFuture;
    /// # fn example<F>(future: CountedFuture<F>) -> CountedFuture<F> {
    /// future
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct CountedFuture<F> {
        #[pin]
        future: F,
        call: Option<OngoingCall>,
    }
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(context));
        let call = this.call.take();
        Poll::Ready(response.map(|response| response.map(|body| CountedBody { body, call })))
    }
}

pin_project! {
    /// The body of a response, whose call counts until it has ended.
    ///
    /// ```
    /// # fn example<B>(body: waypost_client::CountedBody<B>) -> waypost_client::CountedBody<B> {
    /// body
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct CountedBody<B> {
        #[pin]
        body: B,
        call: Option<OngoingCall>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(context));
        if frame.is_none() {
            *this.call = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response without a body has ended.
impl<B: Default> Default for CountedBody<B> {
    fn default() -> Self {
        Self { body: B::default(), call: None }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::{FutureExt, StreamExt};
    use tower::ServiceExt;

    use super::*;

    fn idle(in_flight: &InFlight) -> bool {
        in_flight.wait_idle().now_or_never().is_some()
    }

    #[test]
    fn calls_count_until_their_guard_is_dropped() {
        let in_flight = InFlight::new();
        assert!(idle(&in_flight));
        let shared = in_flight.clone();
        let (first, second) = (in_flight.begin(), shared.begin());
        drop((first, shared));
        assert_eq!((in_flight.count(), idle(&in_flight)), (1, false));
        drop(second);
        assert_eq!((in_flight.count(), idle(&in_flight)), (0, true));
        // It counts again, after a wait.
        let _third = in_flight.begin();
        assert!(!idle(&in_flight));
    }

    fn service(
        in_flight: &InFlight,
    ) -> impl Service<Request<()>, Response = Response<CountedBody<tonic::body::Body>>, Error = Infallible>
    {
        in_flight.layer(tower::service_fn(|_: Request<()>| async {
            let full = tonic::body::Body::new(String::from("hello"));
            Ok::<_, Infallible>(Response::new(full))
        }))
    }

    #[test]
    fn a_call_counts_until_its_body_has_ended() {
        let in_flight = InFlight::new();
        let calling = service(&in_flight).oneshot(Request::new(()));
        assert_eq!(in_flight.count(), 0);
        let response = calling.now_or_never().unwrap().unwrap();
        assert_eq!(in_flight.count(), 1);
        let mut body = Box::pin(response.into_body());
        let mut frames = futures_util::stream::poll_fn(|context| body.as_mut().poll_frame(context));
        let frame = frames.next().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), Bytes::from_static(b"hello"));
        assert_eq!(in_flight.count(), 1);
        assert!(frames.next().now_or_never().unwrap().is_none());
        assert_eq!(in_flight.count(), 0);
    }

    #[test]
    fn a_call_whose_body_is_dropped_has_ended() {
        let in_flight = InFlight::new();
        let response = service(&in_flight).oneshot(Request::new(())).now_or_never().unwrap();
        assert_eq!(in_flight.count(), 1);
        drop(response);
        assert_eq!(in_flight.count(), 0);
    }
}
