//! A caller's connection, from its first byte to its end.
//! Invariant: an idle connection keeps its socket alone; the head of a request arrives in time, or
//! the connection ends.

use std::{
    convert::Infallible,
    error::Error as _,
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::counter;
use tokio::{net::TcpStream, time};
use tonic::body::Body;

use super::{
    activity::{Activity, GuardedBody, HalfClosed, Phase},
    linger::linger,
    rejection::Reject,
    shutdown::Shutdown,
    stream::{self, CallerStream, HttpVersion},
};
use crate::{clock, guard};

/// The bytes of a request's head that are read, at most.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// The same over HTTP/2. The guard refuses a head over [`HEAD_BYTES_MAX`], and the caller's other
/// requests go on; beyond about this bound h2 closes the connection.
const HEADER_LIST_MAX: u32 = 4 * HEAD_BYTES_MAX;
/// Concurrent requests on a connection of HTTP/2.
const STREAMS_MAX: u32 = 1_000;
/// A connection without a request for about so long is idle: hyper's state is dropped, and created
/// again for the next request.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// The time that a caller which closed its side has to take the next bytes of its response. Whether
/// it still reads shows only once something is sent to it.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(5);

/// The time that callers have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For the head of a request.
    pub(crate) head: Duration,
    /// Until they take the next bytes of a response, over HTTP/1.1.
    pub(crate) send: Duration,
}

/// A connection, and how it is served.
pub(super) struct CallerConnection<F> {
    pub(super) timeouts: Timeouts,
    pub(super) shutdown: Shutdown,
    pub(super) respond: F,
    pub(super) reject: Reject,
    pub(super) peer: SocketAddr,
}

/// An idle connection of HTTP/1.1, of which all but the socket is released.
struct ReleasedConnection {
    stream: TcpStream,
    /// The first bytes of the next request.
    read_ahead: Bytes,
    /// The time from which on the head of the next request is due.
    since: Instant,
}

impl<F, A> CallerConnection<F>
where
    F: Fn(Request<Incoming>) -> A + Send + Sync,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    /// Serves it to its end.
    pub(super) async fn run(self, mut stream: TcpStream) {
        let since = clock::now();
        let version = tokio::select! {
            version = stream::detect_version(&mut stream) => version,
            () = self.expired(since) => return,
        };
        let Ok(Some((version, read_ahead))) = version else { return };
        // Boxed: an idle connection stays small.
        match version {
            HttpVersion::Http2 => {
                let stream = CallerStream::http2(stream, read_ahead, self.reject.clone());
                Box::pin(self.http2(stream)).await;
            }
            HttpVersion::Http1 => {
                let mut idle = ReleasedConnection { stream, read_ahead, since };
                while let Some(next) = Box::pin(self.http1(idle)).await {
                    idle = next;
                    if idle.read_ahead.is_empty() {
                        tokio::select! {
                            // The end of the connection, too, is found by reading it as a request.
                            _readable = idle.stream.readable() => {}
                            () = self.expired(idle.since) => return,
                        }
                    }
                }
            }
        }
    }

    /// Waits until the head of a request is overdue, or idle connections close.
    async fn expired(&self, since: Instant) {
        tokio::select! {
            () = self.shutdown.close_idle.cancelled() => {}
            () = time::sleep_until((since + self.timeouts.head).into()) => {}
        }
    }

    async fn http2(&self, stream: CallerStream) {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            // A silent connection is probed.
            .keep_alive_interval(self.timeouts.head)
            .keep_alive_timeout(self.timeouts.head)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_MAX);
        let serving = server.serve_connection(TokioIo::new(stream), service_fn(&self.respond));
        tokio::pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => return self.ended("http2", ended),
            () = self.shutdown.drain.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        self.ended("http2", serving.await);
    }

    /// Logs and counts a connection that ended with an error. Requests that hyper refused are
    /// counted as requests.
    fn ended(&self, protocol: &'static str, ended: hyper::Result<()>) {
        if let Err(error) = ended {
            let cause = error.source().map(tracing::field::display);
            tracing::debug!(peer = %self.peer, protocol, %error, cause, "connection ended with an error");
            counter!("waypost_gateway_connection_errors_total", "protocol" => protocol)
                .increment(1);
        }
    }

    /// Serves requests over HTTP/1.1. Returns the connection once it is idle; `None`: it has ended.
    async fn http1(&self, idle: ReleasedConnection) -> Option<ReleasedConnection> {
        let ReleasedConnection { stream, read_ahead, since } = idle;
        let stream = CallerStream::http1(stream, read_ahead, self.reject.clone());
        let activity = Arc::clone(&stream.activity);
        let mut serving = http1::Builder::new()
            .max_headers(guard::FIELDS_MAX)
            .max_buf_size(HEAD_BYTES_MAX as usize)
            .half_close(true)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| self.respond_http1(&activity, request)),
            )
            .with_upgrades();
        let Timeouts { head, send } = self.timeouts;
        let interval = IDLE_AFTER.min(head / 2).min(send / 2);
        let check = time::sleep(interval);
        tokio::pin!(check);
        let mut checks = Checks::new(self.timeouts, since);
        loop {
            tokio::select! {
                ended = &mut serving => {
                    self.ended("http1", ended);
                    if let Some(parts) = serving.into_parts() {
                        Box::pin(linger(parts.io.into_inner(), &self.shutdown.drain)).await;
                    }
                    return None;
                }
                () = self.shutdown.close_idle.cancelled(), if !checks.is_closing => {
                    checks.is_closing = true;
                    Pin::new(&mut serving).graceful_shutdown();
                    continue;
                }
                () = check.as_mut() => {}
            }
            let now = clock::now();
            match checks.run(&activity, now) {
                Checked::Serving => check.as_mut().reset((now + interval).into()),
                Checked::Expired => return None,
                Checked::Idle => break,
            }
        }
        let parts = serving.into_parts()?;
        let stream = parts.io.into_inner().into_stream();
        // Copied: even an empty part of hyper's buffer would keep all of it.
        let read_ahead = Bytes::copy_from_slice(&parts.read_buf);
        Some(ReleasedConnection { stream, read_ahead, since: checks.active_at })
    }

    fn respond_http1<'a>(
        &'a self,
        activity: &Arc<Activity>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<GuardedBody>, Infallible>> + use<'a, F, A> {
        let (guard, responding) = (activity.begin(&mut request), (self.respond)(request));
        let drain = &self.shutdown.drain;
        async move {
            let Ok(mut response) = responding.await;
            // An upgrade has its own `Connection`.
            if drain.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| GuardedBody { body, _guard: guard }))
        }
    }
}

/// The checks of a connection of HTTP/1.1, at intervals: is it idle, has a timeout passed?
struct Checks {
    timeouts: Timeouts,
    /// The last check that found a request.
    active_at: Instant,
    /// The last check that found no bytes waiting for the caller, or some taken.
    sent_at: Instant,
    requests_seen: u64,
    writes_seen: u64,
    half_closed: HalfClosed,
    /// Set once the connection is to end with its request.
    is_closing: bool,
}

/// The result of a check.
enum Checked {
    /// Go on.
    Serving,
    /// A timeout has passed: close the connection.
    Expired,
    /// Release all but the socket.
    Idle,
}

impl Checks {
    fn new(timeouts: Timeouts, since: Instant) -> Self {
        Self {
            timeouts,
            active_at: since,
            sent_at: since,
            requests_seen: 0,
            writes_seen: 0,
            half_closed: None,
            is_closing: false,
        }
    }

    fn run(&mut self, activity: &Activity, now: Instant) -> Checked {
        if !activity.is_stalled(&mut self.writes_seen) {
            self.sent_at = now;
        } else if now - self.sent_at >= self.timeouts.send {
            return Checked::Expired;
        }
        if activity.half_closed_stall(&mut self.half_closed, now) >= HALF_CLOSED_MAX {
            return Checked::Expired;
        }
        match activity.phase(&mut self.requests_seen) {
            Phase::Active => self.active_at = now,
            _ if now - self.active_at >= self.timeouts.head => return Checked::Expired,
            Phase::Idle if !self.is_closing => return Checked::Idle,
            Phase::Idle | Phase::Reading => {}
        }
        Checked::Serving
    }
}
