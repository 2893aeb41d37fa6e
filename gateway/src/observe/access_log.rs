//! One line for each request, as JSON, once its answer has been sent to the end or given up. It must never
//! hold a request up.

use std::{
    io::Write,
    mem,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, StatusCode, Version, request::Parts};
use http_body::{Frame, SizeHint};
use serde::Serialize;
use tokio::time;
use tonic::{Status, body::Body};
use waypost_client::{HttpChannelError, ServedBy};
use waypost_serving::correlation::{Correlation, TraceId};

use crate::{clock, problem::Problem, routes::Name};

/// A request, from its head on.
#[derive(Debug)]
pub(crate) struct Entry {
    began: Instant,
    at: SystemTime,
    peer: IpAddr,
    /// `None` where the head could not be read.
    method: Option<Method>,
    path: Box<str>,
    version: Version,
    correlation: Correlation,
}

/// What a request came to, and who had to do with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) route: Option<Name>,
    pub(crate) service: Option<Name>,
    pub(crate) instance: Option<Box<str>>,
    pub(crate) attempts: u32,
    /// Until the head of the answer.
    pub(crate) upstream_time: Option<Duration>,
    pub(crate) problem: Option<Box<str>>,
}

impl Entry {
    pub(crate) fn begin(head: &Parts, peer: SocketAddr, correlation: &Correlation) -> Self {
        Self {
            began: clock::now(),
            at: clock::wall_now(),
            peer: peer.ip(),
            method: Some(head.method.clone()),
            path: head.uri.path().into(),
            version: head.version,
            correlation: correlation.clone(),
        }
    }

    /// A request whose head could not be read.
    pub(crate) fn unread(peer: SocketAddr, version: Version, correlation: &Correlation) -> Self {
        Self {
            began: clock::now(),
            at: clock::wall_now(),
            peer: peer.ip(),
            method: None,
            path: "".into(),
            version,
            correlation: correlation.clone(),
        }
    }

    pub(crate) fn took(&self) -> Duration {
        clock::now() - self.began
    }
}

impl Outcome {
    pub(crate) fn with_problem(mut self, problem: &Problem) -> Self {
        self.problem = Some(problem.to_string().into());
        self
    }

    pub(crate) fn answered_by(&mut self, by: &ServedBy) {
        self.instance = Some(by.instance().id.as_str().into());
        self.attempts = by.attempts();
    }

    pub(crate) fn failed(&mut self, failed: &HttpChannelError) {
        self.instance = failed.instance().map(|instance| instance.id.as_str().into());
        self.attempts = failed.attempts();
    }
}

/// A line. Times in milliseconds.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    trace_id: TraceId,
    client: IpAddr,
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    route: Option<&'a str>,
    service: Option<&'a str>,
    instance: Option<&'a str>,
    status: u16,
    attempts: u32,
    upstream_ms: Option<f64>,
    total_ms: f64,
    bytes: u64,
    /// Whether the answer was sent to its end.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
}

/// How often lines are passed on.
const PASS_ON_INTERVAL: Duration = Duration::from_millis(100);
/// As many bytes of lines are passed on without waiting for that.
const PASS_ON_BYTES: usize = 32 << 10;
/// Room for the line that makes them so many.
const LINE_BYTES: usize = 2 << 10;

/// Where lines go. They are passed on some together: to wake up who writes them for each would cost more
/// than the line, and all of a busy moment at once would hold up requests.
pub(crate) struct AccessLog {
    waiting: Mutex<Vec<u8>>,
    to: Mutex<Box<dyn Write + Send>>,
}

impl AccessLog {
    /// `to` must not block.
    pub(crate) fn new(to: Box<dyn Write + Send>) -> Self {
        Self { waiting: Mutex::default(), to: Mutex::new(to) }
    }

    fn add(&self, line: &Line<'_>) {
        let mut waiting = lock(&self.waiting);
        // Into memory: it always takes it.
        let _written = serde_json::to_writer(&mut *waiting, line);
        waiting.push(b'\n');
        if waiting.len() >= PASS_ON_BYTES {
            self.pass_on_these(waiting);
        }
    }

    /// Passes on what waits.
    pub(crate) fn pass_on(&self) {
        let waiting = lock(&self.waiting);
        if !waiting.is_empty() {
            self.pass_on_these(waiting);
        }
    }

    fn pass_on_these(&self, mut waiting: MutexGuard<'_, Vec<u8>>) {
        let next = Vec::with_capacity(PASS_ON_BYTES + LINE_BYTES);
        // Before others may add: lines stay in order.
        let mut to = lock(&self.to);
        let lines = mem::replace(&mut *waiting, next);
        drop(waiting);
        // Nobody to tell of it.
        let _written = to.write_all(&lines);
    }

    /// Passes lines on for ever.
    pub(crate) async fn run(&self) {
        loop {
            time::sleep(PASS_ON_INTERVAL).await;
            self.pass_on();
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves behind is at worst half a line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AccessLog")
    }
}

/// An answer's body, that tells of the request when it has ended.
pub(crate) struct Told<F: FnOnce(Sent)> {
    body: Body,
    sent: Sent,
    /// Gone once it was told.
    tell: Option<F>,
}

/// How much of an answer was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    pub(crate) complete: bool,
}

impl<F: FnOnce(Sent)> Told<F> {
    pub(crate) fn new(body: Body, tell: F) -> Self {
        use http_body::Body as _;
        // Of an answer without a body nothing is asked for.
        let sent = Sent { bytes: 0, complete: body.is_end_stream() };
        Self { body, sent, tell: Some(tell) }
    }
}

impl<F: FnOnce(Sent) + Unpin> http_body::Body for Told<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.sent.complete = true,
            Some(Err(_)) => {}
            Some(Ok(frame)) => {
                self.sent.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // Whoever read the last frame does not always ask for more.
                self.sent.complete = frame.is_trailers() || self.body.is_end_stream();
            }
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

impl<F: FnOnce(Sent)> Drop for Told<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.sent);
        }
    }
}

/// Writes the line of a request.
pub(crate) fn write(
    log: &AccessLog,
    entry: &Entry,
    outcome: &Outcome,
    status: StatusCode,
    sent: Sent,
) {
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    log.add(&Line {
        time: humantime::format_rfc3339_millis(entry.at).to_string(),
        request_id: entry.correlation.request_id_text(),
        trace_id: entry.correlation.trace_id(),
        client: entry.peer,
        method: entry.method.as_ref().map_or("", Method::as_str),
        path: &entry.path,
        protocol: match entry.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        },
        route: outcome.route.as_ref().map(Name::as_str),
        service: outcome.service.as_ref().map(Name::as_str),
        instance: outcome.instance.as_deref(),
        status: status.as_u16(),
        attempts: outcome.attempts,
        upstream_ms: outcome.upstream_time.map(millis),
        total_ms: millis(entry.took()),
        bytes: sent.bytes,
        complete: sent.complete,
        problem: outcome.problem.as_deref(),
    });
}
