//! Routes each request to its protocol, and adds the `date` to each response.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::{body::Body, codegen::StdError};
use tracing::{Instrument, Span, debug_span, field::Empty};
use waypost_serving::correlation::correlation_id;

use super::{
    grpc::{EarlyServices, GrpcApi},
    http::{dated, not_found, refused},
};
use crate::{
    auth::{Caller, Gate, GateRefusal},
    clock::Clock,
    engine::Engine,
    model::Limits,
};

/// All protocols of the port: before the engine runs, while it runs, and after.
#[derive(Debug)]
pub struct Router {
    grpc: GrpcApi,
    closed: Arc<AtomicBool>,
    clock: Clock,
}

impl Router {
    /// Makes the router of a server that is starting: it serves only `early`.
    pub fn new(early: EarlyServices, clock: Clock) -> Self {
        let closed = Arc::<AtomicBool>::default();
        Self { grpc: GrpcApi::new(early, Arc::clone(&closed)), closed, clock }
    }

    /// Serves the registry from here on.
    pub fn open(&self, engine: &Engine, limits: &Arc<Limits>, gate: &Gate) {
        self.grpc.open(engine, limits, self.clock, gate);
    }

    /// Refuses calls from here on. An open stream ends when it is polled next, which its connection
    /// must cause.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Responds to a request of a caller. Every error is a response.
    pub(crate) fn respond<B>(
        &self,
        caller: Result<Caller, GateRefusal>,
        request: Request<B>,
    ) -> impl Future<Output = Response<Body>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        let (span, clock) = (request_span(&request), self.clock);
        let call = if GrpcApi::accepts(&request) {
            Ok(self.grpc.call(caller, request))
        } else {
            Err(caller.err().map(|refusal| refusal.of_call(None, request.headers())))
        };
        let response = async move {
            let response = match call {
                Ok(call) => call.await,
                Err(Some(reason)) => refused(&reason),
                Err(None) => not_found(),
            };
            dated(response, clock)
        };
        response.instrument(span)
    }
}

fn request_span<B>(request: &Request<B>) -> Span {
    let span = debug_span!("request", method = request.uri().path(), correlation_id = Empty);
    if !span.is_disabled()
        && let Some(id) = correlation_id(request.headers())
    {
        span.record("correlation_id", id);
    }
    span
}
