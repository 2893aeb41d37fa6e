//! The body of a request on its way to an instance, with limits of its size and its pauses.
//! Invariant: a faulty body (too long, too slow, cut off) cancels the call and is reported as the
//! caller's error; it never counts against the instance. The body itself fails only once the call
//! has returned.

use std::{
    future::{self, Future},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};
use tonic::{Status, body::Body};

use super::response_body::WithoutForbiddenTrailers;

/// The limits of a body; `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BodyLimits {
    pub(crate) bytes_max: Option<u64>,
    /// The longest pause.
    pub(crate) silence_max: Option<Duration>,
}

/// The fault of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    TooLong,
    TooSlow,
    Broken,
}

/// Receives the fault of a body.
pub(crate) struct BodyFaults(Option<oneshot::Receiver<BodyFault>>);

struct LimitedBody<B> {
    body: B,
    bytes_left: Option<u64>,
    silence_max: Option<Duration>,
    /// Present while nothing arrives.
    silence: Option<Pin<Box<Sleep>>>,
    /// Taken at the fault, after which nothing is read: the instance must not take the fault for an
    /// end.
    fault: Option<oneshot::Sender<BodyFault>>,
}

/// Returns the body that the instance gets, and the receiver of its fault.
pub(crate) fn limit<B>(body: B, limits: BodyLimits) -> (Body, BodyFaults)
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        return (Body::empty(), BodyFaults(None));
    }
    let (fault, faults) = oneshot::channel();
    let BodyLimits { bytes_max, silence_max } = limits;
    let limited =
        LimitedBody { body, bytes_left: bytes_max, silence_max, silence: None, fault: Some(fault) };
    (Body::new(WithoutForbiddenTrailers(limited)), BodyFaults(Some(faults)))
}

impl BodyFaults {
    /// Waits for the fault. Cancel safe.
    pub(crate) async fn next(&mut self) -> BodyFault {
        if let Some(faults) = &mut self.0
            && let Ok(fault) = faults.await
        {
            return fault;
        }
        future::pending().await
    }

    /// Returns the fault so far, if any. From now on a fault fails the body itself.
    pub(crate) fn last(self) -> Option<BodyFault> {
        let mut faults = self.0?;
        faults.close();
        faults.try_recv().ok()
    }
}

impl<B> LimitedBody<B> {
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(silence_max) = self.silence_max else { return Poll::Pending };
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(silence_max)));
        silence.as_mut().poll(context)
    }

    fn check(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyFault> {
        self.silence = None;
        let len = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        if let Some(left) = &mut self.bytes_left {
            *left = left.checked_sub(len).ok_or(BodyFault::TooLong)?;
        }
        Ok(frame)
    }
}

impl<B> http_body::Body for LimitedBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.fault.is_none() {
            return Poll::Pending;
        }
        let checked = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => this.check(frame),
            Poll::Ready(Some(Err(_))) => Err(BodyFault::Broken),
            Poll::Pending if this.poll_silence(context).is_ready() => Err(BodyFault::TooSlow),
            Poll::Pending => return Poll::Pending,
        };
        let fault = match checked {
            Ok(frame) => return Poll::Ready(Some(Ok(frame))),
            Err(fault) => fault,
        };
        match this.fault.take().map(|to| to.send(fault)) {
            Some(Ok(())) => Poll::Pending,
            _ => Poll::Ready(Some(Err(Status::cancelled("the body is faulty")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_some() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[derive(Clone, Copy)]
    enum Rest {
        End,
        Silence,
    }

    type Frames = Vec<Result<Frame<Bytes>, Status>>;

    fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(Bytes::from_static(bytes)))
    }

    /// Limits a body of these frames, and then of `rest`.
    fn limited(frames: Frames, rest: Rest, limits: BodyLimits) -> (Body, BodyFaults) {
        let rest = match rest {
            Rest::Silence => stream::pending().left_stream(),
            Rest::End => stream::empty().right_stream(),
        };
        limit(StreamBody::new(stream::iter(frames).chain(rest)), limits)
    }

    const LIMITS: BodyLimits =
        BodyLimits { bytes_max: Some(5), silence_max: Some(Duration::from_secs(30)) };

    #[tokio::test]
    async fn a_body_within_its_bounds_passes() {
        let (body, faults) = limited(vec![data(b"he"), data(b"llo")], Rest::End, LIMITS);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(faults.last(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_reported_and_never_an_end() {
        for (frames, rest, fault) in [
            (vec![data(b"hello"), data(b"!")], Rest::End, BodyFault::TooLong),
            (vec![data(b"he")], Rest::Silence, BodyFault::TooSlow),
            (vec![data(b"he"), Err(Status::aborted(""))], Rest::End, BodyFault::Broken),
        ] {
            let (body, mut faults) = limited(frames, rest, LIMITS);
            let mut body = body.collect();
            tokio::select! {
                read = &mut body => panic!("{read:?} for {fault:?}"),
                reported = faults.next() => assert_eq!(reported, fault),
            }
            assert!(body.now_or_never().is_none(), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_fault_after_the_response_fails_the_body() {
        let (body, faults) = limited(vec![data(b"hello!")], Rest::End, LIMITS);
        assert_eq!(faults.last(), None);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_do_not_add_up() {
        let limits =
            BodyLimits { silence_max: Some(Duration::from_secs(2)), ..BodyLimits::default() };
        let frames = stream::iter(0..5).then(|_| async {
            sleep(Duration::from_secs(1)).await;
            data(b"x")
        });
        let (body, _faults) = limit(StreamBody::new(Box::pin(frames)), limits);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "xxxxx");
    }

    #[tokio::test]
    async fn forbidden_trailers_are_removed() {
        let mut trailers = HeaderMap::new();
        for name in ["x-checksum", "content-length", "x-waypost-subject", "x_waypost_subject"] {
            trailers.insert(name, http::HeaderValue::from_static("7"));
        }
        let (body, _faults) = limited(vec![Ok(Frame::trailers(trailers))], Rest::End, LIMITS);
        let read = body.collect().await.unwrap();
        let left: Vec<_> = read.trailers().unwrap().keys().collect();
        assert_eq!(left, ["x-checksum"]);
    }
}
