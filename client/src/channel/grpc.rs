//! The tonic adapter: a service for generated clients. Never fails: each error is a response with a
//! status.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::body::Body;

use super::{balanced::BalancedChannel, call::Call, failure::AttemptFailure, protocol::Grpc};
use crate::{correlation, runtime::clock, service::Service, transport::connection::CallFuture};

impl tower::Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        correlation::pass_on(request.headers_mut());
        let channel = self.clone();
        ResponseFuture(Box::pin(async move {
            let call = Call::new::<Grpc>(request, clock::now());
            Ok(channel.run(&call).await.unwrap_or_else(AttemptFailure::into_response))
        }))
    }
}

/// The future response to a call. Dropping it cancels the call. Generated clients wait for it.
///
/// ```
/// use tower::Service as _;
/// use waypost_client::Service;
///
/// # #[tokio::main]
/// # async fn main() {
/// let mut channel = Service::fixed([]).channel();
/// let request = http::Request::new(tonic::body::Body::empty());
/// let Ok(response) = channel.call(request).await;
/// // No instance: UNAVAILABLE is 14.
/// assert_eq!(response.headers()["grpc-status"], "14");
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(CallFuture);

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ResponseFuture")
    }
}

impl Service {
    /// Creates a channel through which generated tonic clients call this service.
    ///
    /// ```
    /// # use waypost_client::Service;
    /// let channel = Service::fixed([]).channel();
    /// # drop(channel);
    /// ```
    #[must_use]
    pub fn channel(&self) -> BalancedChannel {
        BalancedChannel::new(self.clone(), None)
    }
}
