//! A tower layer for HTTP clients: each request goes to an instance picked for it. Invariant: a
//! call counts as in flight until its response body ends.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{
    HeaderValue, Request, Response, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::{Body, Frame, SizeHint};
use tower::Layer;

use super::picked_call::{CallError, PickedCall, RespondedCall};
use crate::{balance::PickContext, endpoint::Outcome, service::Service};

/// Sends each HTTP request to an instance picked for it. With the feature `http`.
///
/// - The instance's host and port replace those of the request's URI; its scheme (default `http`),
///   path and query stay. `Host` is the service's name, or the value of [`host`](Self::host).
/// - A request counts as in flight until the body of its response is read to the end or dropped.
/// - A response with a status of 500 and above, a failure of the inner client, and a body that
///   breaks off are failures of the instance. The response time is measured until the response's
///   head.
/// - It fails at once, with [`CallError::NoInstance`], if there is no instance, or the first view
///   is still loading: wait for [`Service::ready`] first. It sends a request once, and sets no
///   timeout: tower has layers for both.
///
/// With hyper-util's client, and any other service of `http::Request`:
///
/// ```
/// use http_body_util::Empty;
/// use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
/// use tower::{Service as _, ServiceBuilder};
/// use waypost_client::{HttpLayer, Service};
///
/// # async fn example(orders: Service) -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = ServiceBuilder::new()
///     .layer(HttpLayer::new(orders))
///     .service(HttpClient::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>());
/// // The host is replaced.
/// let request = http::Request::get("http://orders/v1/orders/7").body(Empty::new())?;
/// let response = client.call(request).await?;
/// println!("{}", response.status());
/// # Ok(())
/// # }
/// ```
///
/// In an axum server that forwards its requests:
///
/// ```
/// use axum::{
///     Router,
///     body::Body,
///     extract::{Request, State},
///     http::StatusCode,
///     response::{IntoResponse, Response},
/// };
/// use hyper_util::{
///     client::legacy::{Client as HttpClient, connect::HttpConnector},
///     rt::TokioExecutor,
/// };
/// use tower::{Layer, ServiceExt};
/// use waypost_client::{HttpLayer, HttpService, Service};
///
/// type Orders = HttpService<HttpClient<HttpConnector, Body>>;
///
/// async fn pass_on(State(orders): State<Orders>, request: Request) -> Response {
///     match orders.oneshot(request).await {
///         Ok(response) => response.map(Body::new),
///         Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
///     }
/// }
///
/// fn app(orders: Service) -> Router {
///     let client = HttpClient::builder(TokioExecutor::new()).build_http();
///     Router::new().fallback(pass_on).with_state(HttpLayer::new(orders).layer(client))
/// }
/// # drop(app(Service::fixed([])));
/// ```
///
/// # TLS
///
/// The connection is made to the instance's address, which no certificate names. The connector has
/// to expect the service's name there; with hyper-rustls 0.27:
///
/// ```text
/// let name = ServerName::try_from("orders.internal")?;
/// let connector = HttpsConnectorBuilder::new()
///     .with_webpki_roots()
///     .https_only()
///     .with_server_name_resolver(FixedServerNameResolver::new(name))
///     .enable_http1()
///     .build();
/// ```
///
/// and requests have to use `https://`. Such a connector is for this one service.
///
/// # HTTP/2
///
/// Requests carry the URI's host and port as their `:authority`, which is the instance's address
/// here. A different `Host` beside it is not allowed: remove it with `host(None)`.
#[derive(Clone, Debug)]
pub struct HttpLayer {
    service: Service,
    host: Option<HeaderValue>,
}

impl HttpLayer {
    /// Creates a layer that picks from `service`.
    ///
    /// ```
    /// use waypost_client::{HttpLayer, Service};
    ///
    /// let layer = HttpLayer::new(Service::fixed([]));
    /// # drop(layer);
    /// ```
    #[must_use]
    pub fn new(service: Service) -> Self {
        let host = HeaderValue::from_str(service.name()).ok().filter(|host| !host.is_empty());
        Self { service, host }
    }

    /// Sets `Host`. With `None` the inner client derives it from the URI. Default: the service's
    /// name.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use waypost_client::{HttpLayer, Service};
    ///
    /// let host = HeaderValue::from_static("orders.internal");
    /// let layer = HttpLayer::new(Service::fixed([])).host(host);
    /// let layer = layer.host(None);
    /// # drop(layer);
    /// ```
    #[must_use]
    pub fn host(mut self, host: impl Into<Option<HeaderValue>>) -> Self {
        self.host = host.into();
        self
    }

    /// Replaces the address in the URI of `request`.
    fn set_address<B>(&self, request: &mut Request<B>, address: &str) -> Result<(), Box<str>> {
        let bad = || Box::<str>::from(address);
        let authority: Authority = address.parse().map_err(|_| bad())?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(authority);
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad())?;
        match &self.host {
            Some(host) => drop(request.headers_mut().insert(header::HOST, host.clone())),
            None => drop(request.headers_mut().remove(header::HOST)),
        }
        Ok(())
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = HttpService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpService { layer: self.clone(), inner }
    }
}

/// An HTTP client behind an [`HttpLayer`].
///
/// ```
/// use tower::Layer;
/// use waypost_client::{HttpLayer, HttpService, Service};
///
/// let client: HttpService<()> = HttpLayer::new(Service::fixed([])).layer(());
/// # drop(client);
/// ```
#[derive(Clone, Debug)]
pub struct HttpService<S> {
    layer: HttpLayer,
    inner: S,
}

impl<S, Q, B> tower::Service<Request<Q>> for HttpService<S>
where
    S: tower::Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<TrackedBody<B>>;
    type Error = CallError<S::Error>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(CallError::Call)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let call = match PickedCall::start(
            &self.layer.service,
            &PickContext::from_extensions(request.extensions()),
        ) {
            Ok(call) => call,
            Err(reason) => return Box::pin(async move { Err(CallError::NoInstance(reason)) }),
        };
        if let Err(address) = self.layer.set_address(&mut request, call.endpoint().address()) {
            call.end(Outcome::Failure);
            return Box::pin(async move { Err(CallError::Address { address }) });
        }
        let response = self.inner.call(request);
        Box::pin(async move {
            match response.await {
                Ok(response) => Ok(tracked_response(call, response)),
                Err(error) => {
                    call.end(Outcome::Failure);
                    Err(CallError::Call(error))
                }
            }
        })
    }
}

fn tracked_response<B>(call: PickedCall, response: Response<B>) -> Response<TrackedBody<B>> {
    let mut call = call.into_responded();
    if response.status().is_server_error() {
        call.record_failure();
    }
    response.map(|body| TrackedBody { body, call: Some(call) })
}

/// The body of a response through an [`HttpLayer`]: the call counts as in flight until the body is
/// read to the end, or dropped.
///
/// ```
/// use http_body_util::{BodyExt, Empty};
/// use waypost_client::TrackedBody;
///
/// async fn length(response: http::Response<TrackedBody<Empty<&[u8]>>>) -> usize {
///     let Ok(body) = response.into_body().collect().await;
///     body.to_bytes().len()
/// }
/// # let _ = length;
/// ```
pub struct TrackedBody<B> {
    body: B,
    /// Taken at the end of the body.
    call: Option<RespondedCall>,
}

impl<B> TrackedBody<B> {
    fn end(&mut self, outcome: Outcome) {
        if let Some(call) = self.call.take() {
            call.end(outcome);
        }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Err(_)) => self.end(Outcome::Failure),
            None => self.end(Outcome::Success),
            // Not all readers ask for more after the last frame.
            Some(Ok(_)) if self.body.is_end_stream() => self.end(Outcome::Success),
            Some(Ok(_)) => {}
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

impl<B> fmt::Debug for TrackedBody<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TrackedBody").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http::StatusCode;
    use http_body_util::{BodyExt, Full, StreamBody};
    use tower::{Service as _, ServiceExt, service_fn};

    use super::*;
    use crate::proto::{Instance, Status};

    fn service(hosts: &[&str]) -> Service {
        Service::fixed(hosts.iter().map(|host| Instance {
            service: "orders".into(),
            id: (*host).into(),
            host: (*host).into(),
            port: 80,
            status: Status::Up.into(),
            ..Instance::default()
        }))
    }

    fn request_to(layer: &HttpLayer, uri: &str, address: &str) -> (String, Option<String>) {
        let mut request = Request::get(uri).header("host", "elsewhere").body(()).unwrap();
        layer.set_address(&mut request, address).unwrap();
        let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        (request.uri().to_string(), host)
    }

    #[test]
    fn a_request_goes_to_the_instance_and_names_the_service() {
        let layer = HttpLayer::new(service(&["a"]));
        let orders = Some("orders".to_owned());
        let to_a = |uri| request_to(&layer, uri, "10.0.0.1:80");
        assert_eq!(to_a("https://x:7/a?b=c"), ("https://10.0.0.1:80/a?b=c".into(), orders.clone()));
        assert_eq!(to_a("/a"), ("http://10.0.0.1:80/a".into(), orders.clone()));
        assert_eq!(to_a("http://x"), ("http://10.0.0.1:80/".into(), orders.clone()));
        assert_eq!(request_to(&layer, "/", "[::1]:80"), ("http://[::1]:80/".into(), orders));
        let named = layer.clone().host(HeaderValue::from_static("n"));
        assert_eq!(request_to(&named, "/", "a:80").1.as_deref(), Some("n"));
        assert_eq!(request_to(&layer.host(None), "/", "a:80").1, None);
    }

    /// The body of a response, for the test's reads.
    type Reader = TrackedBody<Full<Bytes>>;

    async fn call(
        service: &Service,
        status: StatusCode,
    ) -> Result<Response<Reader>, CallError<()>> {
        let inner = service_fn(move |_: Request<()>| {
            let response = Response::builder().status(status).body(Full::from("body"));
            std::future::ready(response.map_err(drop))
        });
        let request = Request::new(());
        HttpLayer::new(service.clone()).layer(inner).oneshot(request).await
    }

    #[tokio::test]
    async fn a_request_counts_as_in_flight_until_its_body_has_ended() {
        let service = service(&["a"]);
        let endpoint = Arc::clone(service.pick(&PickContext::new()).unwrap().endpoint());
        let read = call(&service, StatusCode::OK).await.unwrap();
        let dropped = call(&service, StatusCode::OK).await.unwrap();
        assert_eq!(endpoint.in_flight(), 2);
        let mut body = read.into_body();
        assert!(body.frame().await.is_some());
        // The last frame was read, but the end was not asked for.
        assert_eq!(endpoint.in_flight(), 1);
        drop(dropped);
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[tokio::test]
    async fn instances_that_fail_or_break_off_are_ejected() {
        for failure in ["500", "breaks off", "fails"] {
            let bad_calls: Arc<Mutex<usize>> = Arc::default();
            let counted = Arc::clone(&bad_calls);
            let inner = service_fn(move |request: Request<()>| {
                let bad = request.uri().host() == Some("bad");
                *counted.lock().unwrap() += usize::from(bad);
                let frame = match failure {
                    "breaks off" if bad => Err(()),
                    _ => Ok(Frame::data(Bytes::new())),
                };
                let body = StreamBody::new(tokio_stream::iter([frame]));
                let mut response = Response::new(body);
                if bad && failure == "500" {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                std::future::ready(if bad && failure == "fails" { Err(()) } else { Ok(response) })
            });
            let mut calls = HttpLayer::new(service(&["a", "b", "bad"])).layer(inner);
            for _ in 0..1_000 {
                if let Ok(response) = calls.ready().await.unwrap().call(Request::new(())).await {
                    let _ = response.into_body().collect().await;
                }
            }
            let bad_calls = *bad_calls.lock().unwrap();
            assert!((1..=5).contains(&bad_calls), "{failure}: {bad_calls}");
        }
    }

    #[tokio::test]
    async fn an_instance_without_a_proper_address_fails_the_call() {
        let error = call(&service(&["no address"]), StatusCode::OK).await.unwrap_err();
        assert_eq!(error, CallError::Address { address: "no address:80".into() });
        let error = call(&service(&[]), StatusCode::OK).await.unwrap_err();
        assert_eq!(error, CallError::NoInstance(crate::NoInstance::Empty));
    }
}
