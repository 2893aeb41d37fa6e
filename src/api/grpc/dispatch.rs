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
    methods::{Family, Method, Need, Responses},
    services::{CallFuture, RegistryServices},
    stream::{OpenedWatch, StreamAccess, StreamEnd},
};
use crate::{
    auth::{AuditTrail, Caller, Gate, GateRefusal},
    clock::Clock,
    engine::Engine,
    model::Limits,
};

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
    Unary(CallFuture, AuditTrail),
    Stream(CallFuture, AuditTrail, StreamEnd),
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
    pub(in crate::api) fn open(
        &self,
        engine: &Engine,
        limits: &Arc<Limits>,
        clock: Clock,
        gate: &Gate,
    ) {
        let _once = self.registry.set(RegistryServices::new(engine, limits, clock, gate));
    }

    /// Calls the method that the request names, within the deadline that it sets, for the caller
    /// that the gate identified.
    pub(in crate::api) fn call<B>(
        &self,
        caller: Result<Caller, GateRefusal>,
        request: Request<B>,
    ) -> impl Future<Output = Response<Body>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        let timeout = grpc_timeout(request.headers());
        let dispatched = self.dispatch(caller, request);
        async move {
            let (call, trail, end) = match dispatched {
                Dispatched::Refused(refusal) => return refusal,
                Dispatched::Unary(call, trail) => (call, trail, None),
                Dispatched::Stream(call, trail, end) => (call, trail, Some(end)),
            };
            let response = call.map(|Ok(response)| normalize_status(response));
            let response = within(timeout, response).await;
            trail.respond(|| error::code_name(&response));
            let status = response.headers().get(Status::GRPC_STATUS);
            debug!(status = status.and_then(|status| status.to_str().ok()), "call finished");
            match end {
                Some(end) => OpenedWatch::as_body(response).map(|body| end.of_responses(body)),
                None => response,
            }
        }
    }

    fn dispatch<B>(
        &self,
        caller: Result<Caller, GateRefusal>,
        mut request: Request<B>,
    ) -> Dispatched
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        let method = Method::of(request.uri().path());
        // A method that does not exist is refused to the unknown like one that does.
        let need = method.map_or(Need::Known, |method| method.need);
        let (name, headers) = (method.map(|method| method.name), request.headers());
        let checked = match caller {
            Ok(caller) => {
                let caller = caller.of_call(name, headers);
                // Before the check: an epoch that begins meanwhile is met by the open stream.
                let epoch = caller.epoch();
                need.check(&caller).map(|()| (caller, epoch))
            }
            Err(refusal) => Err(refusal.of_call(name, headers)),
        };
        let (caller, epoch) = match checked {
            Ok(checked) => checked,
            Err(error) => return Dispatched::Refused(error::refused_access(&error).into_http()),
        };
        let Some(Method { family, need, responses, .. }) = method else {
            return Dispatched::Refused(error::no_such_method().into_http());
        };
        if self.closed.load(Ordering::Acquire) && family != Family::Health {
            return Dispatched::Refused(error::draining().into_http());
        }
        let trail = caller.trail().clone();
        let end = || StreamEnd::new(&self.closed, StreamAccess::new(caller.clone(), need, epoch));
        let call = match (family, self.registry.get()) {
            (Family::Health, _) => Box::pin(self.early.0.clone().call(request)),
            (Family::Reflection, _) => {
                let end = end();
                let request = request.map(|body| end.of_requests(Body::new(body)));
                let call = Box::pin(self.early.0.clone().call(request));
                return Dispatched::Stream(call, trail, end);
            }
            (Family::Registry, None) => {
                return Dispatched::Refused(error::starting().into_http());
            }
            (Family::Registry, Some(registry)) => {
                if caller.is_judged_or_recorded() {
                    request.extensions_mut().insert(caller.clone());
                }
                registry.call(request)
            }
        };
        match responses {
            Responses::One => Dispatched::Unary(call, trail),
            Responses::Stream => Dispatched::Stream(call, trail, end()),
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
