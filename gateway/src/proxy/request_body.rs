//! A request's body on its way to an instance, within its bounds. It must never let the instance take the
//! blame for its caller: a body that comes to nothing tells whoever waits for the answer, who lets go of
//! the call, and fails only where nobody waits any more.

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

use super::response_body::Trimmed;

/// The bounds of a body; none: there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) bytes_max: Option<u64>,
    /// How long nothing of it may come.
    pub(crate) silence_max: Option<Duration>,
}

/// Why a body comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    TooLong,
    TooSlow,
    Broken,
}

/// Hears of a body's fault.
pub(crate) struct Faults(Option<oneshot::Receiver<Fault>>);

struct Upload<B> {
    body: B,
    bytes_left: Option<u64>,
    silence_max: Option<Duration>,
    /// While nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
    /// Gone once there was a fault, after which nothing is read: an end must not be taken for one.
    fault: Option<oneshot::Sender<Fault>>,
}

/// What the instance is sent of `body`.
pub(crate) fn begin<B>(body: B, bounds: Bounds) -> (Body, Faults)
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        return (Body::empty(), Faults(None));
    }
    let (fault, faults) = oneshot::channel();
    let Bounds { bytes_max, silence_max } = bounds;
    let upload =
        Upload { body, bytes_left: bytes_max, silence_max, silence: None, fault: Some(fault) };
    (Body::new(Trimmed(upload)), Faults(Some(faults)))
}

impl Faults {
    /// The fault, once there is one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Fault {
        if let Some(faults) = &mut self.0
            && let Ok(fault) = faults.await
        {
            return fault;
        }
        future::pending().await
    }

    /// The fault that there was in the meantime. From now on the body fails by itself.
    pub(crate) fn last(self) -> Option<Fault> {
        let mut faults = self.0?;
        faults.close();
        faults.try_recv().ok()
    }
}

impl<B> Upload<B> {
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(silence_max) = self.silence_max else { return Poll::Pending };
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(silence_max)));
        silence.as_mut().poll(context)
    }

    fn check(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Fault> {
        self.silence = None;
        let len = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        if let Some(left) = &mut self.bytes_left {
            *left = left.checked_sub(len).ok_or(Fault::TooLong)?;
        }
        Ok(frame)
    }
}

impl<B> http_body::Body for Upload<B>
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
            Poll::Ready(Some(Err(_))) => Err(Fault::Broken),
            Poll::Pending if this.poll_silence(context).is_ready() => Err(Fault::TooSlow),
            Poll::Pending => return Poll::Pending,
        };
        let fault = match checked {
            Ok(frame) => return Poll::Ready(Some(Ok(frame))),
            Err(fault) => fault,
        };
        match this.fault.take().map(|to| to.send(fault)) {
            Some(Ok(())) => Poll::Pending,
            _ => Poll::Ready(Some(Err(Status::cancelled("the body came to nothing")))),
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

    type Frames = Vec<Result<Frame<Bytes>, Status>>;

    fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(Bytes::from_static(bytes)))
    }

    /// A body of these frames, which then ends, or says nothing more.
    fn upload(frames: Frames, goes_on: bool, bounds: Bounds) -> (Body, Faults) {
        let rest =
            if goes_on { stream::pending().left_stream() } else { stream::empty().right_stream() };
        begin(StreamBody::new(stream::iter(frames).chain(rest)), bounds)
    }

    const BOUNDS: Bounds =
        Bounds { bytes_max: Some(5), silence_max: Some(Duration::from_secs(30)) };

    #[tokio::test]
    async fn a_body_within_its_bounds_passes() {
        let (body, faults) = upload(vec![data(b"he"), data(b"llo")], false, BOUNDS);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(faults.last(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_told_and_never_an_end() {
        for (frames, goes_on, fault) in [
            (vec![data(b"hello"), data(b"!")], false, Fault::TooLong),
            (vec![data(b"he")], true, Fault::TooSlow),
            (vec![data(b"he"), Err(Status::aborted(""))], false, Fault::Broken),
        ] {
            let (body, mut faults) = upload(frames, goes_on, BOUNDS);
            let mut body = body.collect();
            tokio::select! {
                read = &mut body => panic!("{read:?} for {fault:?}"),
                told = faults.next() => assert_eq!(told, fault),
            }
            assert!(body.now_or_never().is_none(), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_fault_that_nobody_waits_for_fails_the_body() {
        let (body, faults) = upload(vec![data(b"hello!")], false, BOUNDS);
        assert_eq!(faults.last(), None);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_do_not_add_up() {
        let bounds = Bounds { silence_max: Some(Duration::from_secs(2)), ..Bounds::default() };
        let frames = stream::iter(0..5).then(|_| async {
            sleep(Duration::from_secs(1)).await;
            data(b"x")
        });
        let (body, _faults) = begin(StreamBody::new(Box::pin(frames)), bounds);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "xxxxx");
    }

    #[tokio::test]
    async fn trailers_are_trimmed() {
        let mut trailers = HeaderMap::new();
        for name in ["x-checksum", "content-length", "x-waypost-subject", "x_waypost_subject"] {
            trailers.insert(name, http::HeaderValue::from_static("7"));
        }
        let (body, _faults) = upload(vec![Ok(Frame::trailers(trailers))], false, BOUNDS);
        let read = body.collect().await.unwrap();
        let left: Vec<_> = read.trailers().unwrap().keys().collect();
        assert_eq!(left, ["x-checksum"]);
    }
}
