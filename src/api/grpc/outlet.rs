//! Bounds what waits in a stream to be sent. HTTP/2 takes in as much as the peer's windows allow,
//! some hundred KiB a stream, whether or not the peer reads: here a stream that has enough unsent
//! is not asked for more, and what it would have said stays where it is shared.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame};
use tonic::{Status, body::Body};

/// Bytes that may wait before no more are taken in. A message goes in as a whole: what waits can be
/// one message more.
const UNSENT_MAX: usize = 64 * 1024;

/// A body that says nothing while too much of what it said is unsent.
pub(super) struct Outlet {
    body: Body,
    unsent: Arc<Unsent>,
}

#[derive(Default)]
struct Unsent {
    bytes: AtomicUsize,
    /// Who waits for them to become fewer.
    waker: AtomicWaker,
}

/// Bytes on their way. Whoever sends them drops them once they are written.
struct Piece {
    bytes: Bytes,
    unsent: Arc<Unsent>,
}

impl Outlet {
    pub(super) fn new(body: Body) -> Self {
        Self { body, unsent: Arc::default() }
    }

    fn is_full(&self) -> bool {
        self.unsent.bytes.load(Ordering::Acquire) >= UNSENT_MAX
    }

    /// The same bytes, counted until they are gone.
    fn count(&self, bytes: Bytes) -> Bytes {
        self.unsent.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Piece { bytes, unsent: Arc::clone(&self.unsent) })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.unsent.waker.wake();
    }
}

impl HttpBody for Outlet {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_full() {
            self.unsent.waker.register(context.waker());
            // Looked at again: what was sent before the waker stood there woke nobody.
            if self.is_full() {
                return Poll::Pending;
            }
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_ok(|frame| frame.map_data(|bytes| self.count(bytes)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures_util::{FutureExt, StreamExt, stream, task};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// Whether it was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl task::ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.store(true, Ordering::Relaxed);
        }
    }

    fn endless(piece: usize) -> Outlet {
        let frame = move |_| Ok::<_, Status>(Frame::data(Bytes::from(vec![7; piece])));
        Outlet::new(Body::new(StreamBody::new(stream::iter(0..).map(frame))))
    }

    fn next(outlet: &mut Outlet) -> Option<Bytes> {
        let frame = outlet.frame().now_or_never()?;
        Some(frame.expect("endless").expect("no error").into_data().expect("data"))
    }

    #[test]
    fn what_is_unsent_is_bounded() {
        let mut outlet = endless(1_000);
        let unsent: Vec<_> = std::iter::from_fn(|| next(&mut outlet)).collect();
        assert_eq!(unsent.len(), UNSENT_MAX.div_ceil(1_000));
        assert!(unsent.iter().all(|bytes| **bytes == [7; 1_000]));
    }

    #[test]
    fn what_is_sent_makes_room_and_wakes_who_waits() {
        let mut outlet = endless(UNSENT_MAX / 2);
        let (first, second) = (next(&mut outlet).unwrap(), next(&mut outlet).unwrap());
        let woken = Arc::new(Woken::default());
        let waker = task::waker(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut outlet).poll_frame(&mut context).is_pending());
        // A part of a piece is the piece.
        let part = first.slice(10..20);
        drop(first);
        assert!(!woken.0.load(Ordering::Relaxed));
        drop(part);
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(Pin::new(&mut outlet).poll_frame(&mut context).is_ready());
        drop((second, outlet));
    }

    #[test]
    fn one_message_goes_whatever_its_size() {
        let mut outlet = endless(3 * UNSENT_MAX);
        let message = next(&mut outlet).expect("nothing is unsent");
        assert_eq!(next(&mut outlet), None);
        drop(message);
        assert!(next(&mut outlet).is_some());
    }
}
