//! One call over all of its attempts: its request, its deadline, and the instances that were tried.
//! Never reports more time than is left.

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

/// A call, until its response.
pub(super) struct Call {
    head: Parts,
    body: Replay,
    began: Instant,
    timeout: Option<Timeout>,
    /// The number of attempts that an instance may have received.
    sent: AtomicU32,
    // Microseconds since the start of the call.
    quiet_since: AtomicU64,
    /// The start of the attempt with the response; 0 before.
    responded_from: AtomicU64,
    /// The silence that another attempt was made for.
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
            responded_from: AtomicU64::new(0),
            silence: AtomicU64::new(u64::MAX),
            tried: Mutex::default(),
        }
    }

    /// Returns the requirements for the instance.
    pub(super) fn context(&self) -> PickContext<'_> {
        PickContext::from_extensions(&self.head.extensions)
    }

    /// Returns the deadline if the call has a timeout, as of `now`: the upload may move it.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.timeout? {
            Timeout::WholeCall(limit) => self.began.checked_add(limit),
            Timeout::Instance(limit) => {
                self.body.progress().timeout_start(self.began, now).checked_add(limit)
            }
        }
    }

    /// Returns whether the deadline has passed.
    pub(super) fn is_timed_out(&self, now: Instant) -> bool {
        self.deadline(now).is_some_and(|deadline| deadline <= now)
    }

    /// Returns the timeout, if there is one.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.timeout.map(|(Timeout::WholeCall(limit) | Timeout::Instance(limit))| limit)
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Returns the remaining time if the call has a timeout.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline(now).map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Returns the progress of the upload.
    pub(super) fn progress(&self) -> UploadProgress {
        self.body.progress()
    }

    /// Returns the state of the body, for use after the response's head.
    pub(super) fn source(&self) -> RequestBodyState {
        self.body.source()
    }

    /// Returns the request of an attempt, and the number of attempts before; `None` if the start of
    /// the body is gone.
    pub(super) fn attempt<P: Protocol>(&self, now: Instant) -> Option<(Request<Body>, u32)> {
        let body = self.body.body()?;
        let previous = self.sent.fetch_add(1, Ordering::Relaxed);
        let mut request = Request::from_parts(self.head.clone(), body);
        P::set_headers(request.headers_mut(), self.left(now), previous);
        Some((request, previous))
    }

    /// Returns the request of the latest attempt again; `None` if the start of the body is gone.
    pub(super) fn again<P: Protocol>(&self, now: Instant) -> Option<Request<Body>> {
        let body = self.body.is_replayable().then(|| self.body.body())??;
        let mut request = Request::from_parts(self.head.clone(), body);
        P::set_headers(request.headers_mut(), self.left(now), self.sent().saturating_sub(1));
        Some(request)
    }

    /// Returns whether the method may be served twice without harm.
    pub(super) fn is_idempotent(&self) -> bool {
        self.head.method.is_idempotent()
    }

    /// Uncounts the last attempt: no instance received it.
    pub(super) fn record_unsent(&self) {
        self.sent.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns whether the request can be sent again.
    pub(super) fn is_replayable(&self) -> bool {
        self.body.is_replayable()
    }

    /// Buffers the available part of the body, before the first attempt. Never waits for more.
    pub(super) async fn buffer_available(&self) {
        poll_fn(|context| {
            self.body.buffer_available(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Returns whether the whole body is buffered.
    pub(super) fn is_buffered(&self) -> bool {
        self.body.is_buffered()
    }

    /// Returns the time since when the latest attempt has no response; in the future while it waits
    /// for its start.
    pub(super) fn quiet_since(&self) -> Instant {
        self.at(&self.quiet_since)
    }

    /// Records the start of an attempt, or the earliest time of it.
    pub(super) fn set_quiet_since(&self, since: Instant) {
        self.quiet_since.store(self.micros(since), Ordering::Relaxed);
    }

    /// Returns the time since when the instance of the latest attempt has sent no response to any
    /// call.
    pub(super) fn silent_since(&self, now: Instant) -> Instant {
        let silence = self.tried().latest().and_then(|endpoint| endpoint.silence(now));
        let latest = silence.and_then(|silence| now.checked_sub(silence));
        latest.unwrap_or(self.began).max(self.quiet_since())
    }

    /// Records the silence of an instance for which another attempt is made.
    pub(super) fn set_silence(&self, silence: Duration) {
        self.silence.store(micros(silence), Ordering::Relaxed);
    }

    /// Records that the attempt that `began` then has a response.
    pub(super) fn record_response(&self, began: Instant) {
        self.responded_from.store(self.micros(began), Ordering::Relaxed);
    }

    /// Returns whether a later attempt, made for the silence of this one, got the response first.
    pub(super) fn is_overtaken(&self, began: Instant, silence: Duration) -> bool {
        self.responded_from.load(Ordering::Relaxed) > self.micros(began)
            && micros(silence) >= self.silence.load(Ordering::Relaxed)
    }

    /// Converts to the time since the start of the call.
    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.began))
    }

    fn at(&self, micros: &AtomicU64) -> Instant {
        self.began + Duration::from_micros(micros.load(Ordering::Relaxed))
    }

    /// Returns the tried instances. Never held over an await.
    pub(super) fn tried(&self) -> MutexGuard<'_, TriedInstances> {
        // No code under the lock panics.
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
