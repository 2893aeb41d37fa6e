//! What every request passes on its way in and out: a server that is starting or leaving takes no
//! calls, one that leaves ends the streams that are open, HTTP that is no gRPC gets an answer of its own, and errors made
//! below the services get the form that is promised.

use std::{
    convert::Infallible,
    future::{self, Future},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body, service::Routes};
use tower::{Layer, Service};
use tracing::{Instrument, Span, debug, debug_span, field::Empty};

use super::{error, outlet::Outlet};
use crate::{
    api::http::{dated, is_grpc, not_found},
    clock::Clock,
};

/// The path under which health is asked for: still answered while the server leaves.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// The path of reflection, which would wait for a further question before it notices that nobody
/// hears its answers.
const REFLECTION: &str = "/grpc.reflection.";

/// The methods besides reflection whose answers are streams that end when the server leaves.
const STREAMS: [&str; 4] = [
    "/grpc.health.v1.Health/Watch",
    "/waypost.v1.Discovery/Watch",
    "/waypost.v1.Registry/KeepAlive",
    "/waypost.v1.Admin/Backup",
];

/// Puts the gate before the routes.
#[derive(Debug, Clone)]
pub struct GateLayer {
    routes: Arc<OnceLock<Routes>>,
    leaving: CancellationToken,
    clock: Clock,
}

impl GateLayer {
    /// A gate before what is there from the first moment. It leads to `routes` once they are there,
    /// and closes when `leaving` is cancelled.
    pub fn new(routes: Arc<OnceLock<Routes>>, leaving: CancellationToken, clock: Clock) -> Self {
        Self { routes, leaving, clock }
    }
}

impl Layer<Routes> for GateLayer {
    type Service = Gate;

    fn layer(&self, first: Routes) -> Gate {
        let Self { routes, leaving, clock } = self.clone();
        Gate { first, routes, leaving, clock }
    }
}

/// The routes behind the gate.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Health and reflection.
    first: Routes,
    /// All others, once the server has started.
    routes: Arc<OnceLock<Routes>>,
    leaving: CancellationToken,
    clock: Clock,
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.first, context)
            .map_err(|error| match error {})
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let clock = self.clock;
        let at_once =
            |answer| -> Self::Future { Box::pin(future::ready(Ok(dated(answer, clock)))) };
        if !is_grpc(&request) {
            return at_once(not_found());
        }
        if self.leaving.is_cancelled() && !request.uri().path().starts_with(HEALTH) {
            return at_once(error::draining().into_http());
        }
        let path = request.uri().path();
        let reflects = path.starts_with(REFLECTION);
        let mut routes = if reflects || path.starts_with(HEALTH) {
            self.first.clone()
        } else {
            match self.routes.get() {
                // Always ready.
                Some(routes) => routes.clone(),
                None => {
                    return Box::pin(
                        async move { Ok(dated(error::starting().into_http(), clock)) },
                    );
                }
            }
        };
        let span = request_span(&request);
        let leaving = (reflects || STREAMS.contains(&path)).then(|| self.leaving.clone());
        let (request, answered) = if reflects {
            let answered = CancellationToken::new();
            let end = answered.clone();
            let request = request.map(|body| Body::new(LeavingBody::questions(body, end)));
            (request, Some(answered.drop_guard()))
        } else {
            (request, None)
        };
        let answer = routes.call(request);
        let answer = async move {
            let answer = dated(promised_form(answer.await?), clock);
            let status = answer.headers().get(Status::GRPC_STATUS);
            debug!(status = status.and_then(|status| status.to_str().ok()), "request answered");
            Ok(match leaving {
                Some(leaving) => answer.map(|body| {
                    let body = Body::new(Outlet::new(body));
                    Body::new(LeavingBody::answers(body, leaving, answered))
                }),
                None => answer,
            })
        };
        Box::pin(answer.instrument(span))
    }
}

fn request_span(request: &Request<Body>) -> Span {
    let span = debug_span!("request", method = request.uri().path(), correlation_id = Empty);
    if !span.is_disabled() {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(id) = header("x-request-id").or_else(|| header("traceparent")) {
            span.record("correlation_id", id);
        }
    }
    span
}

/// A message over the limit is refused below the services, as out of range.
fn promised_form(answer: Response<Body>) -> Response<Body> {
    let is_out_of_range = |status: &HeaderValue| status.as_bytes() == b"11";
    if !answer.headers().get(Status::GRPC_STATUS).is_some_and(is_out_of_range) {
        return answer;
    }
    match Status::from_header_map(answer.headers()) {
        Some(status) => too_large(&status).into_http(),
        None => answer,
    }
}

/// The refusal of a message that is too large; any other status as it is.
pub(super) fn too_large(status: &Status) -> Status {
    if status.code() == Code::OutOfRange {
        error::message_too_large(status.message())
    } else {
        status.clone()
    }
}

/// A stream's body that ends when it is told to and has nothing more to say at the moment. Answers
/// end with `UNAVAILABLE` when the server leaves, questions once nobody hears the answers.
struct LeavingBody {
    body: Body,
    /// Made when the body has nothing to say for the first time.
    told: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    token: CancellationToken,
    side: Side,
    ended: bool,
}

/// Whose words a body carries: how it ends is what the other side understands.
enum Side {
    /// The server's; with them gone, the questions end.
    Answers { _answered: Option<DropGuard> },
    /// The client's.
    Questions,
}

impl LeavingBody {
    fn answers(body: Body, leaving: CancellationToken, answered: Option<DropGuard>) -> Self {
        let side = Side::Answers { _answered: answered };
        Self { body, told: None, token: leaving, side, ended: false }
    }

    fn questions(body: Body, answered: CancellationToken) -> Self {
        Self { body, told: None, token: answered, side: Side::Questions, ended: false }
    }

    fn end(&self) -> Option<Result<Frame<Bytes>, Status>> {
        if let Side::Questions = self.side {
            return Some(Err(error::draining()));
        }
        let mut trailers = HeaderMap::new();
        let added = error::draining().add_header(&mut trailers);
        added.is_ok().then(|| Ok(Frame::trailers(trailers)))
    }
}

impl HttpBody for LeavingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let token = self.token.clone();
        let told = self.told.get_or_insert_with(|| Box::pin(token.cancelled_owned()));
        ready!(told.as_mut().poll(context));
        self.ended = true;
        Poll::Ready(self.end())
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
