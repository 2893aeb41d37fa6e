//! A connection, from its first byte to its end. It must never keep more than its socket for one that
//! rests, nor wait longer for the head of a request than it is given.

use std::{
    convert::Infallible,
    error::Error as _,
    future::Future,
    net::SocketAddr,
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
    Ends, Patience,
    linger::linger,
    refusals::Reject,
    turns::{InTurn, State},
    wire::{self, Spoken, Wire},
};
use crate::{clock, guard};

/// How many bytes of a request's head are read.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// The same in HTTP/2. The guard refuses what is over [`HEAD_BYTES_MAX`], and its caller's other requests go
/// on; beyond about this bound h2 closes the connection.
const HEADER_LIST_MAX: u32 = 4 * HEAD_BYTES_MAX;
/// How many requests one connection of HTTP/2 may have under way.
const STREAMS_MAX: u32 = 1_000;
/// How long a connection has no request before it rests, about: what is kept for the next one is made
/// anew then.
const REST_AFTER: Duration = Duration::from_millis(50);
/// How long a caller that closed its side waits for the next byte of its response. Whether it still reads
/// shows only once something is sent to it.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(5);

/// What a connection is served with.
pub(super) struct Connection<F> {
    pub(super) patience: Patience,
    pub(super) ends: Ends,
    pub(super) answer: F,
    pub(super) reject: Reject,
    pub(super) peer: SocketAddr,
}

/// A connection that rests.
struct Resting {
    stream: TcpStream,
    /// Of the next request.
    ahead: Bytes,
    /// Since when its head is waited for.
    since: Instant,
}

impl<F, A> Connection<F>
where
    F: Fn(Request<Incoming>) -> A + Send + Sync,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    /// Serves it to its end.
    pub(super) async fn run(self, mut stream: TcpStream) {
        let since = clock::now();
        let spoken = tokio::select! {
            spoken = wire::spoken(&mut stream) => spoken,
            () = self.lost(since) => return,
        };
        let Ok(Some((spoken, ahead))) = spoken else { return };
        // Boxed: one that rests stays small.
        match spoken {
            Spoken::Http2 => {
                Box::pin(self.http2(Wire::http2(stream, ahead, self.reject.clone()))).await;
            }
            Spoken::Http1 => {
                let mut resting = Resting { stream, ahead, since };
                while let Some(rests) = Box::pin(self.http1(resting)).await {
                    resting = rests;
                    if resting.ahead.is_empty() {
                        tokio::select! {
                            // What there is to read may be the end: it is looked at as a request is.
                            _readable = resting.stream.readable() => {}
                            () = self.lost(resting.since) => return,
                        }
                    }
                }
            }
        }
    }

    /// Waits until no request may come any more whose head is waited for, `since` when.
    async fn lost(&self, since: Instant) {
        tokio::select! {
            () = self.ends.idle.cancelled() => {}
            () = time::sleep_until((since + self.patience.head_timeout).into()) => {}
        }
    }

    async fn http2(&self, wire: Wire) {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            // Who says nothing is asked whether it lives.
            .keep_alive_interval(self.patience.head_timeout)
            .keep_alive_timeout(self.patience.head_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_MAX);
        let serving = server.serve_connection(TokioIo::new(wire), service_fn(&self.answer));
        tokio::pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => return self.ended("http2", ended),
            () = self.ends.leaving.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        self.ended("http2", serving.await);
    }

    /// Logs and counts the end of a connection that is an error. What was refused of it is counted as a
    /// request.
    fn ended(&self, protocol: &'static str, ended: hyper::Result<()>) {
        if let Err(error) = ended {
            let cause = error.source().map(tracing::field::display);
            tracing::debug!(peer = %self.peer, protocol, %error, cause, "connection ended with an error");
            counter!("waypost_gateway_connection_errors_total", "protocol" => protocol)
                .increment(1);
        }
    }

    /// Serves requests until there are no more, or none for a while.
    async fn http1(&self, resting: Resting) -> Option<Resting> {
        let Resting { stream, ahead, mut since } = resting;
        let wire = Wire::http1(stream, ahead, self.reject.clone());
        let turns = wire.turns.clone();
        let answer = service_fn(|mut request| {
            let (turn, answered) = (turns.begin(&mut request), (self.answer)(request));
            let leaving = &self.ends.leaving;
            async move {
                let Ok(mut answer) = answered.await;
                // What the connection becomes is said there already.
                if leaving.is_cancelled() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| InTurn { body, _turn: turn }))
            }
        });
        let mut serving = http1::Builder::new()
            .max_headers(guard::FIELDS_MAX)
            .max_buf_size(HEAD_BYTES_MAX as usize)
            .half_close(true)
            .serve_connection(TokioIo::new(wire), answer)
            .with_upgrades();
        let pause =
            REST_AFTER.min(self.patience.head_timeout / 2).min(self.patience.silence_max / 2);
        let look = time::sleep(pause);
        tokio::pin!(look);
        let (mut is_ending, mut seen, mut taken) = (false, 0, 0);
        let mut taken_at = since;
        let mut half_closed = None;
        loop {
            tokio::select! {
                ended = &mut serving => {
                    self.ended("http1", ended);
                    if let Some(parts) = serving.into_parts() {
                        Box::pin(linger(parts.io.into_inner(), &self.ends.leaving)).await;
                    }
                    return None;
                }
                () = self.ends.idle.cancelled(), if !is_ending => {
                    is_ending = true;
                    Pin::new(&mut serving).graceful_shutdown();
                    continue;
                }
                () = look.as_mut() => {}
            }
            let now = clock::now();
            if !turns.is_left(&mut taken) {
                taken_at = now;
            } else if now - taken_at >= self.patience.silence_max {
                return None;
            }
            if turns.silence(&mut half_closed, now) >= HALF_CLOSED_MAX {
                return None;
            }
            match turns.state(&mut seen) {
                State::Busy => since = now,
                _ if now - since >= self.patience.head_timeout => return None,
                State::Resting if !is_ending => break,
                _ => {}
            }
            look.as_mut().reset((now + pause).into());
        }
        let parts = serving.into_parts()?;
        let stream = parts.io.into_inner().into_stream();
        // Copied: even an empty part of hyper's buffer would keep all of it.
        Some(Resting { stream, ahead: Bytes::copy_from_slice(&parts.read_buf), since })
    }
}
