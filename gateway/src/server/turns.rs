//! What is under way on a connection of HTTP/1.1: whether it rests, and since when. It must never call one
//! at rest that has something to say yet.

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

use super::request_line::{BodyLength, RequestLines};

/// All of it happens in the one task of its connection.
#[derive(Debug)]
pub(super) struct Turns {
    /// Never contended.
    lines: Mutex<RequestLines>,
    begun: AtomicU64,
    ended: AtomicU64,
    /// Whether bytes came that are no request yet.
    pub(super) heard: AtomicBool,
    /// Whether there are bytes that the caller does not take.
    held_up: AtomicBool,
    /// How often it has taken some.
    taken: AtomicU64,
    /// Whether all was sent that hyper had to send, since the last request ended.
    is_flushed: AtomicBool,
    /// Whether the connection becomes another protocol's.
    is_upgraded: AtomicBool,
    /// Whether the caller closed its side while a request was under way.
    pub(super) is_half_closed: AtomicBool,
}

/// When bytes were last taken after the caller closed its side, or when it did, and how often by then.
pub(super) type HalfClosed = Option<(Instant, u64)>;

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A request is under way, or was since it was looked at before.
    Busy,
    /// A request has begun to come, or the body of one may not have ended.
    Listening,
    /// Nothing at all.
    Resting,
}

impl Turns {
    pub(super) fn new(lines: RequestLines) -> Self {
        Self {
            lines: Mutex::new(lines),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            heard: AtomicBool::new(false),
            held_up: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            is_flushed: AtomicBool::new(true),
            is_upgraded: AtomicBool::new(false),
            is_half_closed: AtomicBool::new(false),
        }
    }

    fn lines(&self) -> MutexGuard<'_, RequestLines> {
        // Nothing that is done under the lock panics.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came. Returns what hyper gets in their place, where that is something else.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.heard.store(true, Relaxed);
        self.lines().read(bytes)
    }

    /// What it is about, where `seen` requests had begun when it was looked at before.
    pub(super) fn state(&self, seen: &mut u64) -> State {
        let (begun, ended) = (self.begun.load(Relaxed), self.ended.load(Relaxed));
        if begun != *seen || begun != ended || self.held_up.load(Relaxed) {
            *seen = begun;
            State::Busy
        } else if self.heard.load(Relaxed) || self.lines().is_body_open() {
            State::Listening
        } else {
            State::Resting
        }
    }

    /// All was sent that hyper had to send.
    pub(super) fn flushed(&self) {
        let is_between = self.begun.load(Relaxed) == self.ended.load(Relaxed);
        self.is_flushed.store(is_between, Relaxed);
    }

    /// Returns true where no answer to a request is due: what hyper writes then is an answer of its own to a
    /// request that it refused. A request ends no sooner than hyper has the head of its answer, and hyper
    /// flushes that before it parses another head, or puts its own answer behind it.
    pub(super) fn is_quiet(&self) -> bool {
        let is_between = self.begun.load(Relaxed) == self.ended.load(Relaxed);
        is_between && self.is_flushed.load(Relaxed) && !self.is_upgraded.load(Relaxed)
    }

    /// Bytes were offered to the caller, who took some, or none for now.
    pub(super) fn offered(&self, were_taken: bool) {
        self.held_up.store(!were_taken, Relaxed);
        if were_taken {
            self.taken.fetch_add(1, Relaxed);
        }
    }

    /// Whether the caller leaves what there is for it, where it had taken `seen` times when it was looked at
    /// before.
    pub(super) fn is_left(&self, seen: &mut u64) -> bool {
        let taken = self.taken.load(Relaxed);
        let is_left = self.held_up.load(Relaxed) && taken == *seen;
        *seen = taken;
        is_left
    }

    /// Returns whether a request is there whose response was not sent to its end.
    pub(super) fn is_under_way(&self) -> bool {
        self.begun.load(Relaxed) != self.ended.load(Relaxed)
    }

    /// Returns how long the caller, which closed its side, has taken nothing of its response.
    pub(super) fn silence(&self, half_closed: &mut HalfClosed, now: Instant) -> Duration {
        if !self.is_half_closed.load(Relaxed) || !self.is_under_way() {
            return Duration::ZERO;
        }
        let taken = self.taken.load(Relaxed);
        match half_closed {
            Some((since, before)) if *before == taken => now - *since,
            _ => {
                *half_closed = Some((now, taken));
                Duration::ZERO
            }
        }
    }

    /// A request is there: its turn ends when this is dropped. It gets where its target was encoded, if it
    /// was.
    pub(super) fn begin<B: http_body::Body>(self: &Arc<Self>, request: &mut Request<B>) -> Turn {
        self.begun.fetch_add(1, Relaxed);
        self.heard.store(false, Relaxed);
        self.is_flushed.store(false, Relaxed);
        let is_last =
            request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
        if is_last {
            self.is_upgraded.store(true, Relaxed);
        }
        let length = request.body().size_hint().exact().filter(|_| !is_last);
        let length = length.map_or(BodyLength::Unknown, BodyLength::Known);
        let encoded_at = self.lines().begin(length);
        if let Some(encoded_at) = encoded_at {
            request.extensions_mut().insert(encoded_at);
        }
        Turn(Arc::clone(self))
    }
}

/// A request, until its answer was sent.
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// The body of an answer, with its request's turn.
pub(super) struct InTurn {
    pub(super) body: Body,
    pub(super) _turn: Turn,
}

impl http_body::Body for InTurn {
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
