//! The body of a request that can be sent more than once: sent frames are buffered, up to a limit.
//! Never passes a part of a body off as the whole.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::progress::UploadProgress;
use crate::runtime::clock;

/// The longest body that is buffered.
pub(super) const BUFFER_MAX: usize = 64 * 1024;
/// The least cost of a buffered frame: many small ones add up, too.
const FRAME_MIN: usize = 64;

/// A body and its sent part. Each attempt sends a body from the start; once this is dropped,
/// nothing is buffered any more.
pub(super) struct Replay {
    /// Absent if the body is empty.
    buffer: Option<Arc<Mutex<ReplayBuffer>>>,
}

impl Replay {
    pub(super) fn new(body: Body) -> Self {
        if body.is_end_stream() {
            return Self { buffer: None };
        }
        let size_hint = body.size_hint();
        let buffer = ReplayBuffer {
            source: Some(body),
            size_hint,
            is_buffering: true,
            ..ReplayBuffer::default()
        };
        Self { buffer: Some(Arc::new(Mutex::new(buffer))) }
    }

    /// Returns the body from its start, and ends earlier ones that have not ended; `None` if the
    /// start was discarded.
    pub(super) fn body(&self) -> Option<Body> {
        let Some(shared) = &self.buffer else { return Some(Body::empty()) };
        let mut buffer = lock(shared);
        if buffer.discarded > 0 {
            return None;
        }
        buffer.bodies += 1;
        buffer.bodies_live += 1;
        let number = buffer.bodies;
        buffer.progress.resume(clock::now());
        drop(buffer);
        Some(Body::new(ReplayBody { buffer: Arc::clone(shared), number, at: 0 }))
    }

    /// Returns whether the body can be sent from its start.
    pub(super) fn is_replayable(&self) -> bool {
        self.buffer.as_deref().is_none_or(|buffer| lock(buffer).is_replayable())
    }

    /// Returns the progress of the upload.
    pub(super) fn progress(&self) -> UploadProgress {
        self.buffer.as_deref().map_or_else(UploadProgress::default, |buffer| lock(buffer).progress)
    }

    /// Returns a view of the body's state that outlives this.
    pub(super) fn source(&self) -> RequestBodyState {
        RequestBodyState(self.buffer.clone())
    }

    /// Buffers what is available without waiting, before the first attempt.
    pub(super) fn buffer_available(&self, context: &mut Context<'_>) {
        let Some(buffer) = &self.buffer else { return };
        let mut buffer = lock(buffer);
        while buffer.size <= BUFFER_MAX && buffer.source.is_some() && buffer.failed.is_none() {
            if buffer.poll_source(context).is_pending() {
                return;
            }
        }
    }

    /// Returns whether the whole body is buffered.
    pub(super) fn is_buffered(&self) -> bool {
        self.buffer.as_deref().is_none_or(|buffer| {
            let buffer = lock(buffer);
            buffer.source.is_none() && buffer.size <= BUFFER_MAX && buffer.is_replayable()
        })
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(buffer) = &self.buffer {
            let mut buffer = lock(buffer);
            buffer.is_buffering = false;
            buffer.discard_unneeded();
        }
    }
}

/// The state of the body of a request with a response, which may still be sent.
pub(crate) struct RequestBodyState(Option<Arc<Mutex<ReplayBuffer>>>);

impl RequestBodyState {
    /// Returns whether the caller broke the body off.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.as_deref().is_some_and(|buffer| lock(buffer).failed.is_some())
    }
}

fn lock(buffer: &Mutex<ReplayBuffer>) -> MutexGuard<'_, ReplayBuffer> {
    // A panic of the body itself leaves consistent state.
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
pub(super) struct ReplayBuffer {
    /// Dropped at its end.
    source: Option<Body>,
    /// The size hint of the whole body, taken at the start.
    size_hint: SizeHint,
    frames: Vec<Bytes>,
    /// The number of frames discarded before these.
    discarded: usize,
    trailers: Option<HeaderMap>,
    failed: Option<Status>,
    /// The size of all frames, discarded ones included.
    size: usize,
    is_buffering: bool,
    /// The number of bodies so far. Only the last one reads the source.
    bodies: u64,
    /// The number of bodies that exist.
    bodies_live: u32,
    progress: UploadProgress,
}

impl ReplayBuffer {
    fn is_replayable(&self) -> bool {
        self.discarded == 0 && self.failed.is_none()
    }

    fn end(&self) -> usize {
        self.discarded + self.frames.len()
    }

    /// Returns the frame at `at`, if it is buffered.
    fn frame(&self, at: usize) -> Option<Frame<Bytes>> {
        let data = at.checked_sub(self.discarded).and_then(|at| self.frames.get(at));
        let trailers = || self.trailers.clone().filter(|_| at == self.end()).map(Frame::trailers);
        data.cloned().map(Frame::data).or_else(trailers)
    }

    /// Reads the next frame, the end, or a failure.
    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(source) = &mut self.source else { return Poll::Ready(()) };
        let frame = ready!(Pin::new(&mut *source).poll_frame(context));
        self.progress.advance(clock::now());
        if frame.is_none() || source.is_end_stream() {
            self.source = None;
        }
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => {}
            Some(Err(status)) => self.failed = Some(status),
            Some(Ok(Ok(data))) => {
                self.size = self.size.saturating_add(data.len().max(FRAME_MIN));
                self.frames.push(data);
            }
            Some(Ok(Err(frame))) => {
                self.trailers = frame.into_trailers().ok();
                self.source = None;
            }
        }
        Poll::Ready(())
    }

    /// Discards what was sent up to `at`, if it is too long or not needed again.
    fn trim(&mut self, at: usize) {
        if (!self.is_buffering || self.size > BUFFER_MAX) && at >= self.end() {
            self.discarded = self.end();
            drop(mem::take(&mut self.frames));
        }
    }

    /// Discards all frames if no attempt can need them.
    fn discard_unneeded(&mut self) {
        if !self.is_buffering && self.bodies_live == 0 {
            self.discarded = self.end();
            drop(mem::take(&mut self.frames));
        }
    }
}

/// The body as one attempt sends it.
struct ReplayBody {
    buffer: Arc<Mutex<ReplayBuffer>>,
    number: u64,
    /// The next frame.
    at: usize,
}

impl http_body::Body for ReplayBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut buffer = lock(&this.buffer);
        loop {
            if let Some(frame) = buffer.frame(this.at) {
                this.at += 1;
                buffer.trim(this.at);
                return Poll::Ready(Some(Ok(frame)));
            }
            if let Some(status) = &buffer.failed {
                return Poll::Ready(Some(Err(status.clone())));
            }
            if buffer.source.is_none() && this.at >= buffer.end() {
                return Poll::Ready(None);
            }
            if this.number != buffer.bodies {
                return Poll::Ready(Some(Err(Status::cancelled("the call was retried"))));
            }
            if buffer.poll_source(context).is_pending() {
                buffer.progress.pause();
                return Poll::Pending;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let buffer = lock(&self.buffer);
        let end = buffer.end() + usize::from(buffer.trailers.is_some());
        buffer.source.is_none() && buffer.failed.is_none() && self.at >= end
    }

    fn size_hint(&self) -> SizeHint {
        // It is read before the first frame.
        if self.at == 0 { lock(&self.buffer).size_hint } else { SizeHint::default() }
    }
}

impl Drop for ReplayBody {
    fn drop(&mut self) {
        let mut buffer = lock(&self.buffer);
        buffer.bodies_live -= 1;
        if self.number == buffer.bodies {
            buffer.progress.resume(clock::now());
        }
        buffer.discard_unneeded();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A body of these frames, which then ends or stays open.
    struct Frames(VecDeque<Result<Frame<Bytes>, Status>>, bool);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let frame = self.0.pop_front();
            if frame.is_none() && !self.1 { Poll::Pending } else { Poll::Ready(frame) }
        }
    }

    fn data(size: usize) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(vec![7; size].into()))
    }

    fn replay<const N: usize>(frames: [Result<Frame<Bytes>, Status>; N], ends: bool) -> Replay {
        Replay::new(Body::new(Frames(frames.into(), ends)))
    }

    /// Returns the sizes of a body's frames, 0 for trailers, and its end.
    fn read(body: &mut Body) -> (Vec<usize>, Poll<Result<(), Status>>) {
        let mut sizes = Vec::new();
        loop {
            let mut context = Context::from_waker(std::task::Waker::noop());
            match Pin::new(&mut *body).poll_frame(&mut context) {
                Poll::Pending => return (sizes, Poll::Pending),
                Poll::Ready(None) => return (sizes, Poll::Ready(Ok(()))),
                Poll::Ready(Some(Err(status))) => return (sizes, Poll::Ready(Err(status))),
                Poll::Ready(Some(Ok(frame))) => sizes.push(frame.data_ref().map_or(0, Bytes::len)),
            }
        }
    }

    fn all(body: &mut Body) -> Vec<usize> {
        let (sizes, end) = read(body);
        assert!(matches!(end, Poll::Ready(Ok(()))), "{end:?}");
        sizes
    }

    fn is_buffered(replay: &Replay) -> bool {
        replay.buffer_available(&mut Context::from_waker(std::task::Waker::noop()));
        replay.is_buffered()
    }

    #[test]
    fn a_short_body_is_sent_again_and_again() {
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        let replay = replay([data(5), data(3), trailers], true);
        for _ in 0..3 {
            assert_eq!(all(&mut replay.body().unwrap()), [5, 3, 0]);
        }
    }

    #[test]
    fn a_second_body_starts_anew_and_ends_the_first() {
        let replay = replay([data(5), data(3)], false);
        let mut first = replay.body().unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut first).poll_frame(&mut context).is_ready());
        let mut second = replay.body().unwrap();
        let (sizes, end) = read(&mut second);
        assert_eq!(sizes, [5, 3]);
        assert!(end.is_pending(), "{end:?}");
        // The first may still read what is buffered; then it ends with an error, not as a whole
        // body.
        let (sizes, end) = read(&mut first);
        assert_eq!(sizes, [3]);
        assert!(matches!(end, Poll::Ready(Err(_))), "{end:?}");
    }

    #[test]
    fn a_body_over_the_limit_is_sent_once() {
        let replay = replay([data(BUFFER_MAX), data(1), data(9)], true);
        assert_eq!(all(&mut replay.body().unwrap()), [BUFFER_MAX, 1, 9]);
        assert!(replay.body().is_none());
        assert!(!replay.is_replayable());
    }

    #[test]
    fn a_body_at_the_limit_is_buffered() {
        let replay = replay([data(BUFFER_MAX)], true);
        assert_eq!(all(&mut replay.body().unwrap()), [BUFFER_MAX]);
        assert_eq!(all(&mut replay.body().unwrap()), [BUFFER_MAX]);
        assert_eq!(BUFFER_MAX, 64 * 1024);
    }

    #[test]
    fn many_small_frames_count_for_more_than_their_bytes() {
        let frames: [_; BUFFER_MAX / FRAME_MIN + 1] = std::array::from_fn(|_| data(1));
        let replay = replay(frames, true);
        assert_eq!(all(&mut replay.body().unwrap()).len(), BUFFER_MAX / FRAME_MIN + 1);
        assert!(!replay.is_replayable());
    }

    #[test]
    fn nothing_is_buffered_after_the_response() {
        let replay = replay([data(5), data(3)], true);
        let buffer = replay.buffer.clone().unwrap();
        let mut pass = replay.body().unwrap();
        drop(replay);
        assert_eq!(all(&mut pass), [5, 3]);
        assert!(lock(&buffer).frames.is_empty());
    }

    #[test]
    fn a_body_that_fails_is_not_replayable() {
        let replay = replay([data(5), Err(Status::internal("broken"))], true);
        let (sizes, end) = read(&mut replay.body().unwrap());
        assert_eq!(sizes, [5]);
        assert!(matches!(end, Poll::Ready(Err(_))), "{end:?}");
        assert!(!replay.is_replayable());
    }

    #[test]
    fn the_available_part_is_buffered_without_waiting() {
        let short = replay([data(5), data(3)], true);
        assert!(is_buffered(&short));
        assert_eq!(all(&mut short.body().unwrap()), [5, 3]);
        assert!(!is_buffered(&replay([data(5)], false)));
        assert!(!is_buffered(&replay([data(5), Err(Status::internal("broken"))], true)));
        assert!(is_buffered(&Replay::new(Body::empty())));
        let long = replay([data(BUFFER_MAX), data(1), data(9)], true);
        assert!(!is_buffered(&long));
        assert_eq!(all(&mut long.body().unwrap()), [BUFFER_MAX, 1, 9]);
    }

    #[test]
    fn an_empty_body_stays_one() {
        let replay = Replay::new(Body::empty());
        let mut pass = replay.body().unwrap();
        assert!(pass.is_end_stream());
        assert_eq!(pass.size_hint().exact(), Some(0));
        assert_eq!(all(&mut pass), [0; 0]);
    }
}
