//! Request targets with bytes that a URI can't hold, and the byte stream that writes them. Invariant: only the
//! target of the one request line that it was given is replaced; all other bytes pass as they are.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{Method, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};

/// The target of a request, byte for byte, where its URI only holds an encoded form of it: many clients
/// send `"`, `<` and `>`, which have to be percent-encoded, as they are. An extension of a request through
/// an [`HttpChannel`](crate::HttpChannel). Over HTTP/2, whose `:path` can't hold such bytes, the URI counts.
///
/// ```
/// use waypost_client::RawTarget;
///
/// let mut request = http::Request::get("/find?q=%22a%22").body(tonic::body::Body::empty())?;
/// if let Some(target) = RawTarget::new("/find?q=\"a\"") {
///     request.extensions_mut().insert(target);
/// }
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTarget(Arc<str>);

impl RawTarget {
    /// `None` for a target that does not begin with `/`, or holds a space or a control character: it would
    /// end the request line, or be read in several ways.
    ///
    /// ```
    /// use waypost_client::RawTarget;
    ///
    /// assert!(RawTarget::new("/a?b=<c>").is_some());
    /// assert!(RawTarget::new("/a\r\n").is_none());
    /// ```
    #[must_use]
    pub fn new(target: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() || !byte.is_ascii();
        let is_whole = target.starts_with('/') && target.bytes().all(is_plain);
        is_whole.then(|| Self(target.into()))
    }
}

/// The replacement of a request line, from a call to the stream that writes it.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Read before the lock is taken: there is seldom anything.
    is_set: AtomicBool,
    replacement: Mutex<Option<Replacement>>,
}

struct Replacement {
    line: String,
    by: String,
}

impl Slot {
    /// Replaces the target in the request line that is written next, which has to be of this request.
    pub(super) fn set(&self, method: &Method, uri: &Uri, target: &RawTarget) {
        let line = |target: &dyn std::fmt::Display| format!("{method} {target} HTTP/1.1\r\n");
        let replacement = Replacement { line: line(uri), by: line(&target.0) };
        *self.0.replacement.lock().unwrap_or_else(PoisonError::into_inner) = Some(replacement);
        self.0.is_set.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> Option<Replacement> {
        // The same task sets it before it writes.
        if !self.0.is_set.load(Ordering::Relaxed) {
            return None;
        }
        self.0.is_set.store(false, Ordering::Relaxed);
        self.0.replacement.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Relaxed)
    }
}

/// A byte stream that replaces what its slot holds.
pub(super) struct TargetStream<S> {
    stream: S,
    slot: Slot,
    pending: Option<Pending>,
}

/// Bytes on their way in place of others.
struct Pending {
    bytes: Vec<u8>,
    written: usize,
    /// How many bytes of the writer's they stand for.
    stands_for: usize,
}

impl<S> TargetStream<S> {
    pub(super) fn new(stream: S, slot: Slot) -> Self {
        Self { stream, slot, pending: None }
    }

    /// Takes the replacement, where `bytes` begin with the line that it is for.
    fn replace(&mut self, bytes: &[u8]) {
        let Some(Replacement { line, by }) = self.slot.take() else { return };
        if let Some(rest) = bytes.strip_prefix(line.as_bytes()) {
            let bytes_by = [by.as_bytes(), rest].concat();
            self.pending = Some(Pending { bytes: bytes_by, written: 0, stands_for: bytes.len() });
        }
    }
}

impl<S: Write + Unpin> Write for TargetStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.pending.is_none() {
            this.replace(bytes);
        }
        while let Some(pending) = &mut this.pending {
            let rest = &pending.bytes[pending.written..];
            let count = ready!(Pin::new(&mut this.stream).poll_write(context, rest))?;
            pending.written += count;
            if count == 0 || pending.written == pending.bytes.len() {
                let stands_for = if count == 0 { 0 } else { pending.stands_for };
                this.pending = None;
                return Poll::Ready(Ok(stands_for));
            }
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.pending.is_some() || self.slot.is_set() {
            let first = pieces.iter().find(|piece| !piece.is_empty());
            return self.poll_write(context, first.map_or(&[], |piece| &**piece));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
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

impl<S: Read + Unpin> Read for TargetStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use super::*;

    /// Takes as many bytes with each write as it is told to, 0 of which is pending once.
    #[derive(Default)]
    struct Taker {
        takes: VecDeque<usize>,
        taken: Vec<u8>,
    }

    impl Write for Taker {
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

    /// What comes out where `bytes` are written, with these counts, after the slot was set.
    fn written(bytes: &str, takes: &[usize], vectored: bool) -> String {
        let slot = Slot::default();
        let taker = Taker { takes: takes.iter().copied().collect(), ..Taker::default() };
        let mut stream = TargetStream::new(taker, slot.clone());
        let target = RawTarget::new("/a?q=\"<b>\"").unwrap();
        slot.set(&Method::GET, &Uri::from_static("/a?q=%22%3Cb%3E%22"), &target);
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
    fn another_request_line_stays() {
        for bytes in ["POST /a?q=%22%3Cb%3E%22 HTTP/1.1\r\n\r\n", "GET /a HTTP/1.1\r\n\r\n", "x"] {
            assert_eq!(written(bytes, &[1, 0, 2], false), bytes);
        }
    }

    #[test]
    fn a_target_is_visible_and_begins_with_a_slash() {
        for target in ["", "a", "*", "http://a/", "/a b", "/a\tb", "/a\r\nx: y", "/\u{7f}", "/\0"] {
            assert_eq!(RawTarget::new(target), None, "{target:?}");
        }
    }
}
