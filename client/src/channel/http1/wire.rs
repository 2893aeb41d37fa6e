//! The bytes of an HTTP/1.1 connection, as hyper reads and writes them. Counts received bytes, and
//! replaces a request target that a URI can't hold. Goes on receiving after the instance stopped
//! reading a request: its response may be there already, and hyper would drop it for the failed
//! write. Invariant: only the target of the one given request line is replaced; all other bytes
//! pass unchanged.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use http::{Method, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::raw_target::RawTarget;

/// The bytes received since the start of a call. Written and read by the one task that drives the
/// connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Received(Arc<AtomicUsize>);

impl Received {
    /// Starts the count for a call.
    pub(super) fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// The replacement of a request line, from a call to the stream that writes it.
#[derive(Clone, Default)]
pub(super) struct TargetSlot(Arc<TargetState>);

#[derive(Default)]
struct TargetState {
    /// Read before the lock is taken: a replacement is rare.
    is_set: AtomicBool,
    replacement: Mutex<Option<RequestLine>>,
}

struct RequestLine {
    expected: String,
    by: String,
}

impl TargetSlot {
    /// Replaces the target in the next request line, which has to be of this request.
    pub(super) fn set(&self, method: &Method, uri: &Uri, target: &RawTarget) {
        let line = |target: &dyn std::fmt::Display| format!("{method} {target} HTTP/1.1\r\n");
        let replacement = RequestLine { expected: line(uri), by: line(&target.as_str()) };
        *self.0.replacement.lock().unwrap_or_else(PoisonError::into_inner) = Some(replacement);
        self.0.is_set.store(true, Relaxed);
    }

    fn take(&self) -> Option<RequestLine> {
        // The same task sets it before it writes.
        if !self.0.is_set.load(Relaxed) {
            return None;
        }
        self.0.is_set.store(false, Relaxed);
        self.0.replacement.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_set(&self) -> bool {
        self.0.is_set.load(Relaxed)
    }
}

pub(super) struct WireStream<S> {
    stream: S,
    received: Received,
    target: TargetSlot,
    replaced: Option<PendingWrite>,
    /// Set once the instance has stopped reading.
    is_write_closed: bool,
}

/// Bytes that are written in place of others.
struct PendingWrite {
    bytes: Vec<u8>,
    written: usize,
    /// The number of the writer's bytes that they replace.
    stands_for: usize,
}

impl<S> WireStream<S> {
    pub(super) fn new(stream: S, received: Received, target: TargetSlot) -> Self {
        Self { stream, received, target, replaced: None, is_write_closed: false }
    }

    /// Takes the replacement, if `bytes` begin with its request line.
    fn replace(&mut self, bytes: &[u8]) {
        let Some(RequestLine { expected, by }) = self.target.take() else { return };
        if let Some(rest) = bytes.strip_prefix(expected.as_bytes()) {
            let bytes_by = [by.as_bytes(), rest].concat();
            self.replaced =
                Some(PendingWrite { bytes: bytes_by, written: 0, stands_for: bytes.len() });
        }
    }

    /// Keeps a write pending that failed because the instance closed the connection: the received
    /// bytes, or the end of the connection, decide the call.
    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_refusal(&error) => {
                self.is_write_closed = true;
                Poll::Pending
            }
            written => written,
        }
    }
}

impl<S: AsyncWrite + Unpin> WireStream<S> {
    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaced.is_none() {
            self.replace(bytes);
        }
        while let Some(replaced) = &mut self.replaced {
            let rest = &replaced.bytes[replaced.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            replaced.written += count;
            if count == 0 || replaced.written == replaced.bytes.len() {
                let stands_for = if count == 0 { 0 } else { replaced.stands_for };
                self.replaced = None;
                return Poll::Ready(Ok(stands_for));
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for WireStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.received.0.store(self.received.bytes().saturating_add(count), Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WireStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_write_closed {
            return Poll::Pending;
        }
        let written = self.write(context, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_write_closed {
            return Poll::Pending;
        }
        let written = if self.replaced.is_some() || self.target.is_set() {
            let first = pieces.iter().find(|piece| !piece.is_empty());
            self.write(context, first.map_or(&[], |piece| &**piece))
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
        };
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn bytes_sent_before_a_reset_are_received_after_a_failed_write() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut instance, _) = listener.accept().await.unwrap();
        let received = Received::default();
        let mut wire = WireStream::new(stream, received.clone(), TargetSlot::default());
        wire.write_all(b"never read").await.unwrap();
        instance.readable().await.unwrap();
        instance.write_all(b"no").await.unwrap();
        // Unread bytes make it a reset.
        drop(instance);
        let writes = async {
            loop {
                wire.write_all(&[0; 1024]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let never = tokio::time::timeout(std::time::Duration::from_millis(50), writes).await;
        never.unwrap_err();
        let mut read = Vec::new();
        // It may end in an error: that depends on the system.
        let _ended = wire.read_to_end(&mut read).await;
        assert_eq!(read, b"no");
        assert_eq!(received.bytes(), 2);
        received.reset();
        assert_eq!(received.bytes(), 0);
    }

    /// Takes the given number of bytes with each write; 0 is pending once.
    #[derive(Default)]
    struct Taker {
        takes: VecDeque<usize>,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Taker {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let take = self.takes.pop_front().unwrap_or(usize::MAX).min(bytes.len());
            if take == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.taken.extend(&bytes[..take]);
            Poll::Ready(Ok(take))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Returns the output for `bytes`, written in these portions after the slot was set.
    fn written(bytes: &str, takes: &[usize], vectored: bool) -> String {
        let target = TargetSlot::default();
        let taker = Taker { takes: takes.iter().copied().collect(), ..Taker::default() };
        let mut stream = WireStream::new(taker, Received::default(), target.clone());
        let raw = RawTarget::new("/a?q=\"<b>\"").unwrap();
        target.set(&Method::GET, &Uri::from_static("/a?q=%22%3Cb%3E%22"), &raw);
        let mut rest = bytes.as_bytes();
        let mut context = Context::from_waker(Waker::noop());
        while !rest.is_empty() {
            let stream = Pin::new(&mut stream);
            let pieces = [io::IoSlice::new(rest)];
            let count = match vectored {
                true => stream.poll_write_vectored(&mut context, &pieces),
                false => stream.poll_write(&mut context, rest),
            };
            if let Poll::Ready(count) = count {
                rest = &rest[count.unwrap()..];
            }
        }
        String::from_utf8(stream.stream.taken).unwrap()
    }

    #[test]
    fn the_target_of_the_next_request_line_is_replaced() {
        let line = "GET /a?q=%22%3Cb%3E%22 HTTP/1.1\r\n";
        let rest = "host: a\r\n\r\nGET /a?q=%22%3Cb%3E%22 HTTP/1.1\r\n\r\n";
        let expected = format!("GET /a?q=\"<b>\" HTTP/1.1\r\n{rest}");
        for takes in [&[][..], &[0, 1, 0, 3, 0], &[10, 1, 1, 1, 20], &[2, 0, 40, 2]] {
            for vectored in [false, true] {
                assert_eq!(written(&format!("{line}{rest}"), takes, vectored), expected);
            }
        }
    }

    #[test]
    fn another_request_line_stays_unchanged() {
        for bytes in ["POST /a?q=%22%3Cb%3E%22 HTTP/1.1\r\n\r\n", "GET /a HTTP/1.1\r\n\r\n", "x"] {
            assert_eq!(written(bytes, &[1, 0, 2], false), bytes);
        }
    }
}
