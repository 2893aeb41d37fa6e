//! One call, over all of its attempts: what is sent, until when, and where it was tried. It must never
//! claim more time than is left of it.

use std::{
    future::poll_fn,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Request, request::Parts};
use tonic::body::Body;

use super::{
    progress::Progress,
    protocol::Protocol,
    replay::{Replay, Source},
    timeout::Timeout,
    tried::Tried,
};
use crate::{balance::PickContext, clock::Instant};

/// A call, until it is answered.
pub(super) struct Call {
    head: Parts,
    body: Replay,
    began: Instant,
    timeout: Option<Timeout>,
    /// How often it was sent to where it may have been received.
    sent: AtomicU32,
    tried: Mutex<Tried>,
}

impl Call {
    pub(super) fn new<P: Protocol>(request: Request<Body>, now: Instant) -> Self {
        let (mut head, body) = request.into_parts();
        let timeout = P::timeout(&mut head);
        Self {
            head,
            body: Replay::new(body),
            began: now,
            timeout,
            sent: AtomicU32::new(0),
            tried: Mutex::default(),
        }
    }

    /// What it wants of its instance.
    pub(super) fn context(&self) -> PickContext<'_> {
        PickContext::of(&self.head.extensions)
    }

    /// When its time is over, where it has a timeout, as far as can be said `now`: the upload may move it
    /// further away.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.timeout? {
            Timeout::OfAll(limit) => self.began.checked_add(limit),
            Timeout::OfInstance(limit) => {
                self.body.progress().counts_from(self.began, now).checked_add(limit)
            }
        }
    }

    /// How much of its time is left, where it has a timeout.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline(now).map(|deadline| deadline.saturating_duration_since(now))
    }

    /// How far its upload has come.
    pub(super) fn progress(&self) -> Progress {
        self.body.progress()
    }

    /// Its body, as it is seen after the answer's head.
    pub(super) fn source(&self) -> Source {
        self.body.source()
    }

    /// The request of an attempt, and how many were before it; `None` where the body's beginning is
    /// gone.
    pub(super) fn attempt<P: Protocol>(&self, now: Instant) -> Option<(Request<Body>, u32)> {
        let body = self.body.pass()?;
        let previous = self.sent.fetch_add(1, Ordering::Relaxed);
        let mut request = Request::from_parts(self.head.clone(), body);
        P::tell(request.headers_mut(), self.left(now), previous);
        Some((request, previous))
    }

    /// The last attempt was received by nobody.
    pub(super) fn note_unsent(&self) {
        self.sent.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether it can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// Whether all of its body is there, and short enough to be kept. Never waits for it.
    pub(super) async fn is_at_hand(&self) -> bool {
        poll_fn(|context| Poll::Ready(self.body.is_at_hand(context))).await
    }

    /// Where it was tried. Never held while anything is waited for.
    pub(super) fn tried(&self) -> MutexGuard<'_, Tried> {
        // Nothing that is done under the lock panics.
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
