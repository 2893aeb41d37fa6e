//! Dispatches gRPC calls: to health and reflection at any time, to the registry's services while
//! the engine runs. A server that starts or shuts down refuses calls, and shutting down ends open
//! streams.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Body as HttpBody;
use tonic::{Status, body::Body, codegen::StdError};
use tower::Service;
use tracing::debug;

use super::{
    deadline::{grpc_timeout, within},
    early::EarlyServices,
    error,
    services::{CallFuture, RegistryServices},
    stream::{OpenedWatch, StreamEnd},
};
use crate::{clock::Clock, engine::Engine, model::Limits};

/// The path of health, which is served while the server shuts down.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// The path of reflection. It reads its next request before it finds that the caller is gone, so
/// its requests must be ended too.
const REFLECTION: &str = "/grpc.reflection.";

/// The other methods with response streams, which shutting down ends.
const STREAMS: [&str; 4] = [
    "/grpc.health.v1.Health/Watch",
    "/waypost.v1.Discovery/Watch",
    "/waypost.v1.Registry/KeepAlive",
    "/waypost.v1.Admin/Backup",
];

/// All gRPC services of the port.
#[derive(Debug)]
pub(in crate::api) struct GrpcApi {
    early: EarlyServices,
    /// Set once the server has started.
    registry: OnceLock<RegistryServices>,
    closed: Arc<AtomicBool>,
}

/// A call after its dispatch.
enum Dispatched {
    Refused(Response<Body>),
    Unary(CallFuture),
    Stream(CallFuture, StreamEnd),
}

impl GrpcApi {
    /// Serves `early`. Once `closed` is set, serves only health.
    pub(in crate::api) fn new(early: EarlyServices, closed: Arc<AtomicBool>) -> Self {
        Self { early, registry: OnceLock::new(), closed }
    }

    /// Returns whether the request is gRPC.
    pub(in crate::api) fn accepts<B>(request: &Request<B>) -> bool {
        let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
    }

    /// Serves the registry from here on. Only the first call has an effect.
    pub(in crate::api) fn open(&self, engine: &Engine, limits: &Arc<Limits>, clock: Clock) {
        let _once = self.registry.set(RegistryServices::new(engine, limits, clock));
    }

    /// Calls the method that the request names, within the deadline that it sets.
    pub(in crate::api) fn call<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Response<Body>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        let timeout = grpc_timeout(request.headers());
        let dispatched = self.dispatch(request);
        async move {
            let (call, end) = match dispatched {
                Dispatched::Refused(refusal) => return refusal,
                Dispatched::Unary(call) => (call, None),
                Dispatched::Stream(call, end) => (call, Some(end)),
            };
            let response = call.map(|Ok(response)| normalize_status(response));
            let response = within(timeout, response).await;
            let status = response.headers().get(Status::GRPC_STATUS);
            debug!(status = status.and_then(|status| status.to_str().ok()), "call finished");
            match end {
                Some(end) => OpenedWatch::as_body(response).map(|body| end.of_responses(body)),
                None => response,
            }
        }
    }

    fn dispatch<B>(&self, request: Request<B>) -> Dispatched
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        let path = request.uri().path();
        let is_health = path.starts_with(HEALTH);
        if self.closed.load(Ordering::Acquire) && !is_health {
            return Dispatched::Refused(error::draining().into_http());
        }
        if path.starts_with(REFLECTION) {
            let end = StreamEnd::new(&self.closed);
            let request = request.map(|body| end.of_requests(Body::new(body)));
            return Dispatched::Stream(Box::pin(self.early.0.clone().call(request)), end);
        }
        let streams = STREAMS.contains(&path);
        let call = if is_health {
            Box::pin(self.early.0.clone().call(request))
        } else if let Some(registry) = self.registry.get() {
            registry.call(request)
        } else {
            return Dispatched::Refused(error::starting().into_http());
        };
        if streams {
            Dispatched::Stream(call, StreamEnd::new(&self.closed))
        } else {
            Dispatched::Unary(call)
        }
    }
}

/// Replaces `OUT_OF_RANGE`, which is what tonic returns for a message over the limit, by the
/// documented status.
fn normalize_status(response: Response<Body>) -> Response<Body> {
    let is_out_of_range = |status: &HeaderValue| status.as_bytes() == b"11";
    if !response.headers().get(Status::GRPC_STATUS).is_some_and(is_out_of_range) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) => error::normalized(&status).into_http(),
        None => response,
    }
}
