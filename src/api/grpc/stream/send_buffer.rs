//! A bounded send buffer for each stream. h2 buffers as much as the peer's windows allow, some
//! hundred KiB for each stream, even if the peer does not read. A stream with enough unsent bytes
//! is not polled here, so that its next messages stay in the shared log and directory.
//!
//! Invariant: a stream has at most [`UNSENT_MAX`] unsent bytes and one message.

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

/// The unsent bytes from which on the body is not polled. A message is buffered as a whole, so that
/// the buffer may hold one message more.
const UNSENT_MAX: usize = 64 * 1024;

/// A body that is pending while too many of its bytes are unsent.
pub(super) struct SendBuffer {
    body: Body,
    unsent: Arc<UnsentCount>,
}

#[derive(Default)]
struct UnsentCount {
    bytes: AtomicUsize,
    /// Woken when bytes are sent.
    waker: AtomicWaker,
}

/// Unsent bytes, which the connection drops once it has written them.
struct UnsentBytes {
    bytes: Bytes,
    unsent: Arc<UnsentCount>,
}

impl SendBuffer {
    pub(super) fn new(body: Body) -> Self {
        Self { body, unsent: Arc::default() }
    }

    fn is_full(&self) -> bool {
        self.unsent.bytes.load(Ordering::Acquire) >= UNSENT_MAX
    }

    /// Counts the bytes as unsent until they are dropped.
    fn count(&self, bytes: Bytes) -> Bytes {
        self.unsent.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(UnsentBytes { bytes, unsent: Arc::clone(&self.unsent) })
    }
}

impl AsRef<[u8]> for UnsentBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for UnsentBytes {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.unsent.waker.wake();
    }
}

impl HttpBody for SendBuffer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_full() {
            self.unsent.waker.register(context.waker());
            // Again: bytes may have been sent before the waker was registered.
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

    /// Records a wake-up.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl task::ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.store(true, Ordering::Relaxed);
        }
    }

    fn endless(piece: usize) -> SendBuffer {
        let frame = move |_| Ok::<_, Status>(Frame::data(Bytes::from(vec![7; piece])));
        SendBuffer::new(Body::new(StreamBody::new(stream::iter(0..).map(frame))))
    }

    fn next(buffer: &mut SendBuffer) -> Option<Bytes> {
        let frame = buffer.frame().now_or_never()?;
        Some(frame.expect("endless").expect("no error").into_data().expect("data"))
    }

    #[test]
    fn unsent_bytes_are_bounded() {
        let mut buffer = endless(1_000);
        let unsent: Vec<_> = std::iter::from_fn(|| next(&mut buffer)).collect();
        assert_eq!(unsent.len(), UNSENT_MAX.div_ceil(1_000));
        assert!(unsent.iter().all(|bytes| **bytes == [7; 1_000]));
    }

    #[test]
    fn sent_bytes_make_room_and_wake_the_stream() {
        let mut buffer = endless(UNSENT_MAX / 2);
        let (first, second) = (next(&mut buffer).unwrap(), next(&mut buffer).unwrap());
        let woken = Arc::new(Woken::default());
        let waker = task::waker(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut buffer).poll_frame(&mut context).is_pending());
        // A slice keeps the whole piece unsent.
        let part = first.slice(10..20);
        drop(first);
        assert!(!woken.0.load(Ordering::Relaxed));
        drop(part);
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(Pin::new(&mut buffer).poll_frame(&mut context).is_ready());
        drop((second, buffer));
    }

    #[test]
    fn one_message_of_any_size_is_sent() {
        let mut buffer = endless(3 * UNSENT_MAX);
        let message = next(&mut buffer).expect("nothing is unsent");
        assert_eq!(next(&mut buffer), None);
        drop(message);
        assert!(next(&mut buffer).is_some());
    }
}
