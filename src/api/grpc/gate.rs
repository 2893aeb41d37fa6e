//! What every request passes on its way in and out: a server that is starting or leaving takes no
//! calls, one that leaves ends the streams that are open, HTTP that is no gRPC gets an answer of its own, and errors made
//! below the services get the form that is promised.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body, codegen::StdError, service::Routes};
use tower::Service;
use tracing::{Instrument, Span, debug, debug_span, field::Empty};

use super::{
    deadline::{in_time, patience},
    error,
    outlet::Outlet,
    services::{Call, Services},
    watch_body::Opened,
};
use crate::{
    api::http::{dated, is_grpc, not_found},
    clock::Clock,
    engine::Engine,
    model::Limits,
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

/// What stands before the services.
#[derive(Debug)]
pub struct Gate {
    /// Health and reflection.
    first: Routes,
    /// All others, once the server has started.
    services: OnceLock<Services>,
    closed: Arc<AtomicBool>,
    clock: Clock,
}

impl Gate {
    /// A gate before what is there from the first moment.
    pub fn new(first: Routes, clock: Clock) -> Self {
        Self { first, services: OnceLock::new(), closed: Arc::default(), clock }
    }

    /// Takes no calls from here on; the streams that are open end when somebody looks at them, which
    /// their connections have to see to.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Leads to the services from here on, once there is an engine.
    pub fn open(&self, engine: &Engine, limits: &Arc<Limits>) {
        let _once = self.services.set(Services::new(engine, limits, self.clock));
    }

    /// Answers a request.
    pub fn answer<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Response<Body>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        let (span, clock) = (request_span(&request), self.clock);
        let patience = patience(request.headers());
        let led = self.lead(request);
        let answer = async move {
            let (call, ending) = match led {
                Led::Refused(refusal) => return dated(refusal, clock),
                Led::Call(call) => (call, None),
                Led::Stream(call, ending) => (call, Some(ending)),
            };
            let answer = call.map(|Ok(answer)| promised_form(answer));
            let answer = in_time(patience, answer).await;
            let status = answer.headers().get(Status::GRPC_STATUS);
            debug!(status = status.and_then(|status| status.to_str().ok()), "request answered");
            let answer = match ending {
                Some(ending) => Opened::as_body(answer).map(|body| ending.of_answers(body)),
                None => answer,
            };
            dated(answer, clock)
        };
        answer.instrument(span)
    }

    /// Leads a request to the service that it is for.
    fn lead<B>(&self, request: Request<B>) -> Led
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        if !is_grpc(&request) {
            return Led::Refused(not_found());
        }
        let path = request.uri().path();
        let asks_health = path.starts_with(HEALTH);
        if self.closed.load(Ordering::Acquire) && !asks_health {
            return Led::Refused(error::draining().into_http());
        }
        if path.starts_with(REFLECTION) {
            let ending = Ending::of(&self.closed);
            let request = request.map(|body| ending.of_questions(Body::new(body)));
            return Led::Stream(Box::pin(self.first.clone().call(request)), ending);
        }
        let streams = STREAMS.contains(&path);
        let call = if asks_health {
            Box::pin(self.first.clone().call(request))
        } else if let Some(services) = self.services.get() {
            services.call(request)
        } else {
            return Led::Refused(error::starting().into_http());
        };
        if streams { Led::Stream(call, Ending::of(&self.closed)) } else { Led::Call(call) }
    }
}

/// Where a request leads.
enum Led {
    /// Nowhere.
    Refused(Response<Body>),
    /// To one answer.
    Call(Call),
    /// To answers that go on.
    Stream(Call, Ending),
}

/// When streams end that would go on.
struct Ending {
    /// The answers', once the gate is closed.
    closed: Arc<AtomicBool>,
    /// The questions', once nobody hears the answers.
    unheard: CancellationToken,
}

fn request_span<B>(request: &Request<B>) -> Span {
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
    side: Side,
    ended: bool,
}

/// Whose words a body carries: it says when they end, and how so that the other side understands.
enum Side {
    /// The server's; with them gone, the questions end.
    Answers { closed: Arc<AtomicBool>, _unheard: DropGuard },
    /// The client's.
    Questions { unheard: Pin<Box<WaitForCancellationFutureOwned>> },
}

impl Ending {
    fn of(closed: &Arc<AtomicBool>) -> Self {
        Self { closed: Arc::clone(closed), unheard: CancellationToken::new() }
    }

    fn of_answers(self, body: Body) -> Body {
        let body = Body::new(Outlet::new(body));
        let side = Side::Answers { closed: self.closed, _unheard: self.unheard.drop_guard() };
        Body::new(LeavingBody { body, side, ended: false })
    }

    fn of_questions(&self, body: Body) -> Body {
        let unheard = Box::pin(self.unheard.clone().cancelled_owned());
        Body::new(LeavingBody { body, side: Side::Questions { unheard }, ended: false })
    }
}

impl Side {
    /// Ready with how the body ends, once it has to. Nobody is woken when the gate closes.
    fn poll_end(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self {
            Self::Answers { closed, .. } if !closed.load(Ordering::Acquire) => Poll::Pending,
            Self::Answers { .. } => {
                let mut trailers = HeaderMap::new();
                let added = error::draining().add_header(&mut trailers);
                Poll::Ready(added.is_ok().then(|| Ok(Frame::trailers(trailers))))
            }
            Self::Questions { unheard } => {
                unheard.as_mut().poll(context).map(|()| Some(Err(error::draining())))
            }
        }
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
        let end = ready!(self.side.poll_end(context));
        self.ended = true;
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
