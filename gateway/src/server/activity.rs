//! The requests under way on a connection of HTTP/1.1: is it idle, does its caller take the
//! response? Invariant: a connection is not idle while it has bytes to send, or while a request or
//! its body may be arriving.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, header::UPGRADE};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

use super::request_line::{BodyLength, TargetEncoder};

/// The state of a connection. All of it changes in the one task of the connection.
#[derive(Debug)]
pub(super) struct Activity {
    /// Never contended.
    encoder: Mutex<TargetEncoder>,
    started: AtomicU64,
    finished: AtomicU64,
    /// Set while bytes have arrived that are no request yet.
    has_unparsed: AtomicBool,
    /// Set while bytes wait that the caller does not take.
    is_blocked: AtomicBool,
    /// The number of writes of which the caller took bytes.
    writes: AtomicU64,
    /// Set once hyper has sent all that it had, since the last request finished.
    is_flushed: AtomicBool,
    /// Set once the connection may become another protocol's.
    is_upgraded: AtomicBool,
    /// Set once the caller has closed its side during a request.
    is_half_closed: AtomicBool,
}

/// The last time that a half-closed caller took bytes, or closed its side, and the writes until
/// then.
pub(super) type HalfClosed = Option<(Instant, u64)>;

/// The state of a connection's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A request is under way, or was since the check before.
    Active,
    /// A request has begun to arrive, or the body of one may not have ended.
    Reading,
    /// Nothing is under way.
    Idle,
}

impl Activity {
    pub(super) fn new(encoder: TargetEncoder) -> Self {
        Self {
            encoder: Mutex::new(encoder),
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            has_unparsed: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            is_flushed: AtomicBool::new(true),
            is_upgraded: AtomicBool::new(false),
            is_half_closed: AtomicBool::new(false),
        }
    }

    fn encoder(&self) -> MutexGuard<'_, TargetEncoder> {
        // Nothing panics under the lock.
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that bytes have arrived. Returns what hyper gets in their place, if anything else.
    pub(super) fn received(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.set_unparsed();
        self.encoder().encode(bytes)
    }

    /// Notes that hyper gets bytes that are no request yet.
    pub(super) fn set_unparsed(&self) {
        self.has_unparsed.store(true, Relaxed);
    }

    /// Returns the phase. `seen` is the number of requests that had started at the check before.
    pub(super) fn phase(&self, seen: &mut u64) -> Phase {
        let started = self.started.load(Relaxed);
        if started != *seen || self.is_under_way() || self.is_blocked.load(Relaxed) {
            *seen = started;
            Phase::Active
        } else if self.has_unparsed.load(Relaxed) || self.encoder().is_body_open() {
            Phase::Reading
        } else {
            Phase::Idle
        }
    }

    /// Notes that hyper has sent all that it had.
    pub(super) fn flushed(&self) {
        self.is_flushed.store(!self.is_under_way(), Relaxed);
    }

    /// Returns true where no response is due: what hyper writes then is its own response to a
    /// request that it refused. A request finishes no sooner than hyper has the head of its
    /// response, and hyper flushes that before it parses another head, or puts its own response
    /// behind it.
    pub(super) fn is_between_requests(&self) -> bool {
        !self.is_under_way() && self.is_flushed.load(Relaxed) && !self.is_upgraded.load(Relaxed)
    }

    /// Notes a write of which the caller took bytes.
    pub(super) fn wrote(&self) {
        self.is_blocked.store(false, Relaxed);
        self.writes.fetch_add(1, Relaxed);
    }

    /// Notes a write of which the caller took nothing for now.
    pub(super) fn write_blocked(&self) {
        self.is_blocked.store(true, Relaxed);
    }

    /// Returns true where the caller has taken no bytes since the check before, though some wait.
    /// `seen` is the number of writes at that check.
    pub(super) fn is_stalled(&self, seen: &mut u64) -> bool {
        let writes = self.writes.load(Relaxed);
        let is_stalled = self.is_blocked.load(Relaxed) && writes == *seen;
        *seen = writes;
        is_stalled
    }

    /// Returns true during a request: until its response is sent to its end.
    pub(super) fn is_under_way(&self) -> bool {
        self.started.load(Relaxed) != self.finished.load(Relaxed)
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.is_half_closed.load(Relaxed)
    }

    pub(super) fn set_half_closed(&self) {
        self.is_half_closed.store(true, Relaxed);
    }

    /// Returns the time for which a half-closed caller has taken nothing of its response.
    pub(super) fn half_closed_stall(&self, half_closed: &mut HalfClosed, now: Instant) -> Duration {
        if !self.is_half_closed() || !self.is_under_way() {
            return Duration::ZERO;
        }
        let writes = self.writes.load(Relaxed);
        match half_closed {
            Some((since, before)) if *before == writes => now - *since,
            _ => {
                *half_closed = Some((now, writes));
                Duration::ZERO
            }
        }
    }

    /// Starts a request, which finishes when the guard is dropped. The request gets the positions
    /// at which its target was encoded, if any.
    pub(super) fn begin<B: http_body::Body>(
        self: &Arc<Self>,
        request: &mut Request<B>,
    ) -> RequestGuard {
        self.started.fetch_add(1, Relaxed);
        self.has_unparsed.store(false, Relaxed);
        self.is_flushed.store(false, Relaxed);
        let is_last =
            request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
        if is_last {
            self.is_upgraded.store(true, Relaxed);
        }
        let length = request.body().size_hint().exact().filter(|_| !is_last);
        let length = length.map_or(BodyLength::Unknown, BodyLength::Known);
        let encoded_at = self.encoder().head_parsed(length);
        if let Some(encoded_at) = encoded_at {
            request.extensions_mut().insert(encoded_at);
        }
        RequestGuard(Arc::clone(self))
    }
}

/// A request under way.
pub(super) struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Relaxed);
    }
}

/// The body of a response, which keeps its request under way.
pub(super) struct GuardedBody {
    pub(super) body: Body,
    pub(super) _guard: RequestGuard,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
