//! One call, over all of its attempts: what is sent, until when, and where it was tried. It must never
//! claim more time than is left of it.

mod progress;
mod replay;
mod tried;

use std::{
    future::poll_fn,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Request, request::Parts};
use tonic::body::Body;

pub(crate) use self::replay::RequestBodyState;
use self::{progress::UploadProgress, replay::Replay, tried::TriedInstances};
use crate::{
    balance::PickContext,
    channel::{protocol::Protocol, timeout::Timeout},
    runtime::clock::Instant,
};

/// A call, until it is answered.
pub(super) struct Call {
    head: Parts,
    body: Replay,
    began: Instant,
    timeout: Option<Timeout>,
    /// How often it was sent to where it may have been received.
    sent: AtomicU32,
    // Microseconds since it began.
    quiet_since: AtomicU64,
    /// The beginning of the attempt that was answered; 0 before.
    answered_from: AtomicU64,
    /// The silence for which another attempt was made.
    silence: AtomicU64,
    tried: Mutex<TriedInstances>,
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
            quiet_since: AtomicU64::new(0),
            answered_from: AtomicU64::new(0),
            silence: AtomicU64::new(u64::MAX),
            tried: Mutex::default(),
        }
    }

    /// What it wants of its instance.
    pub(super) fn context(&self) -> PickContext<'_> {
        PickContext::from_extensions(&self.head.extensions)
    }

    /// When its time is over, where it has a timeout, as far as can be said `now`: the upload may move it
    /// further away.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.timeout? {
            Timeout::WholeCall(limit) => self.began.checked_add(limit),
            Timeout::Instance(limit) => {
                self.body.progress().timeout_start(self.began, now).checked_add(limit)
            }
        }
    }

    /// Returns whether its time is over.
    pub(super) fn is_timed_out(&self, now: Instant) -> bool {
        self.deadline(now).is_some_and(|deadline| deadline <= now)
    }

    /// All of its time, where it has a timeout.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.timeout.map(|(Timeout::WholeCall(limit) | Timeout::Instance(limit))| limit)
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// How much of its time is left, where it has a timeout.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline(now).map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Returns how far its upload has come.
    pub(super) fn progress(&self) -> UploadProgress {
        self.body.progress()
    }

    /// Its body, as it is seen after the answer's head.
    pub(super) fn source(&self) -> RequestBodyState {
        self.body.source()
    }

    /// The request of an attempt, and how many were before it; `None` where the body's beginning is
    /// gone.
    pub(super) fn attempt<P: Protocol>(&self, now: Instant) -> Option<(Request<Body>, u32)> {
        let body = self.body.body()?;
        let previous = self.sent.fetch_add(1, Ordering::Relaxed);
        let mut request = Request::from_parts(self.head.clone(), body);
        P::set_headers(request.headers_mut(), self.left(now), previous);
        Some((request, previous))
    }

    /// The request of the latest attempt once more; `None` where the body's beginning is gone.
    pub(super) fn again<P: Protocol>(&self, now: Instant) -> Option<Request<Body>> {
        let body = self.body.is_replayable().then(|| self.body.body())??;
        let mut request = Request::from_parts(self.head.clone(), body);
        P::set_headers(request.headers_mut(), self.left(now), self.sent().saturating_sub(1));
        Some(request)
    }

    /// Returns whether its method does no harm by being served twice.
    pub(super) fn is_idempotent(&self) -> bool {
        self.head.method.is_idempotent()
    }

    /// The last attempt was received by nobody.
    pub(super) fn record_unsent(&self) {
        self.sent.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether it can be sent again.
    pub(super) fn is_replayable(&self) -> bool {
        self.body.is_replayable()
    }

    /// Takes in what there is of its body, before the first attempt. Never waits for more.
    pub(super) async fn buffer_available(&self) {
        poll_fn(|context| {
            self.body.buffer_available(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Returns whether all of its body is there, and short enough to be kept.
    pub(super) fn is_buffered(&self) -> bool {
        self.body.is_buffered()
    }

    /// Since when its latest attempt has no answer; later than now while it waits for the next one.
    pub(super) fn quiet_since(&self) -> Instant {
        self.at(&self.quiet_since)
    }

    /// An attempt begins, or will begin no sooner than then.
    pub(super) fn set_quiet_since(&self, since: Instant) {
        self.quiet_since.store(self.micros(since), Ordering::Relaxed);
    }

    /// Since when the instance of its latest attempt has sent no answer to any call.
    pub(super) fn silent_since(&self, now: Instant) -> Instant {
        let silence = self.tried().latest().and_then(|endpoint| endpoint.silence(now));
        let answered = silence.and_then(|silence| now.checked_sub(silence));
        answered.unwrap_or(self.began).max(self.quiet_since())
    }

    /// An attempt goes to another instance as the one before was silent for so long.
    pub(super) fn set_silence(&self, silence: Duration) {
        self.silence.store(micros(silence), Ordering::Relaxed);
    }

    /// An attempt that `began` then was answered.
    pub(super) fn record_response(&self, began: Instant) {
        self.answered_from.store(self.micros(began), Ordering::Relaxed);
    }

    /// Whether an attempt that `began` then, and has been silent for so long, was overtaken by a later one
    /// that was made for its silence.
    pub(super) fn is_overtaken(&self, began: Instant, silence: Duration) -> bool {
        self.answered_from.load(Ordering::Relaxed) > self.micros(began)
            && micros(silence) >= self.silence.load(Ordering::Relaxed)
    }

    /// As time since it began.
    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.began))
    }

    fn at(&self, micros: &AtomicU64) -> Instant {
        self.began + Duration::from_micros(micros.load(Ordering::Relaxed))
    }

    /// Where it was tried. Never held while anything is waited for.
    pub(super) fn tried(&self) -> MutexGuard<'_, TriedInstances> {
        // Nothing that is done under the lock panics.
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
