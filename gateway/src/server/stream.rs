//! The byte stream of a caller's connection as hyper gets it: detects the version of HTTP, notes
//! activity, encodes targets, and completes the responses of hyper's own.
//! Invariant: no byte is lost or sent twice.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    activity::Activity,
    http2_frames::Http2Frames,
    rejection::{Reject, Substitute},
    request_line::TargetEncoder,
};

/// The first bytes of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A caller's connection.
pub(super) struct CallerStream {
    stream: TcpStream,
    /// Bytes that were read before hyper asks for them.
    read_ahead: Bytes,
    /// Set where unread bytes hid the end of the stream at the last look.
    has_unread: bool,
    pub(super) activity: Arc<Activity>,
    reject: Reject,
    /// Present over HTTP/2.
    frames: Option<Http2Frames>,
    substitute: Option<Substitute>,
}

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
}

impl CallerStream {
    /// A connection of HTTP/1.1, before a request.
    pub(super) fn http1(stream: TcpStream, mut read_ahead: Bytes, reject: Reject) -> Self {
        let activity = Activity::new(TargetEncoder::new());
        if !read_ahead.is_empty()
            && let Some(changed) = activity.received(&read_ahead)
        {
            read_ahead = changed.into();
        }
        Self::new(stream, read_ahead, activity, reject, None)
    }

    /// A connection of HTTP/2; `read_ahead` is its preface.
    pub(super) fn http2(stream: TcpStream, read_ahead: Bytes, reject: Reject) -> Self {
        let activity = Activity::new(TargetEncoder::disabled());
        Self::new(stream, read_ahead, activity, reject, Some(Http2Frames::default()))
    }

    fn new(
        stream: TcpStream,
        read_ahead: Bytes,
        activity: Activity,
        reject: Reject,
        frames: Option<Http2Frames>,
    ) -> Self {
        let activity = Arc::new(activity);
        Self { stream, read_ahead, has_unread: false, activity, reject, frames, substitute: None }
    }

    fn take_read_ahead(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.read_ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.read_ahead.split_to(count));
    }

    /// Returns the socket, once hyper has read all that was read ahead.
    pub(super) fn into_stream(self) -> TcpStream {
        debug_assert!(self.read_ahead.is_empty(), "hyper reads all before it waits");
        self.stream
    }

    /// Looks for the end of the caller's side during a request, as hyper does not.
    ///
    /// # Errors
    /// The connection was reset: the response has no reader.
    fn look_for_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_known = self.activity.is_half_closed();
        if is_known || !self.read_ahead.is_empty() || !self.activity.is_under_way() {
            return Ok(());
        }
        if self.has_unread {
            // The end is behind bytes that hyper does not read yet: the system reports it beside
            // them.
            let ready = self.stream.ready(Interest::READABLE).now_or_never();
            if ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed())) {
                self.activity.set_half_closed();
            }
            return Ok(());
        }
        let mut byte = [0];
        match self.stream.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => self.activity.set_half_closed(),
            Poll::Ready(Ok(_)) => self.has_unread = true,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        Ok(())
    }

    /// Notes a write, whose result it returns.
    fn written<T>(&self, written: Poll<T>) -> Poll<T> {
        match written {
            Poll::Ready(_) => self.activity.wrote(),
            Poll::Pending => self.activity.write_blocked(),
        }
        written
    }

    /// Returns true where `pieces`, which are written next, hold a response of hyper's own.
    fn is_refusal(&self, pieces: &[io::IoSlice<'_>]) -> bool {
        let Some(frames) = &self.frames else { return self.activity.is_between_requests() };
        let mut sent = frames.sent;
        pieces.iter().any(|piece| {
            let holds_one = sent.reset_in(piece, &frames.received).is_some();
            sent.advance(piece);
            holds_one
        })
    }

    /// Prepares the substitute where `bytes` begin with a response of hyper's own. Returns the
    /// number of bytes before the next such response.
    fn substitute(&mut self, bytes: &[u8]) -> usize {
        match &self.frames {
            Some(frames) => match frames.sent.reset_in(bytes, &frames.received) {
                Some((0, stream)) => {
                    self.substitute = Some(Substitute::of_reset(stream, &self.reject));
                    0
                }
                Some((before, _)) => before,
                None => bytes.len(),
            },
            None if self.activity.is_between_requests() => {
                self.substitute = Substitute::of_head(bytes, &self.reject);
                bytes.len()
            }
            _ => bytes.len(),
        }
    }

    /// Writes the substitute. Ready with the number of hyper's bytes that it replaces, once all of
    /// it is written.
    fn poll_substitute(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        while let Some(substitute) = &mut self.substitute {
            let rest = &substitute.bytes[substitute.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            substitute.written += count;
            if count == 0 {
                break;
            }
            if substitute.written == substitute.bytes.len() {
                let replaced = substitute.replaces.min(bytes.len());
                self.substitute = None;
                self.sent(&bytes[..replaced]);
                return Poll::Ready(Ok(replaced));
            }
        }
        Poll::Ready(Ok(0))
    }

    fn sent(&mut self, bytes: &[u8]) {
        if let Some(frames) = &mut self.frames {
            frames.sent.advance(bytes);
        }
    }
}

/// Detects the version by the first bytes, and returns both. `None`: the connection ends before.
pub(super) async fn detect_version(
    stream: &mut TcpStream,
) -> io::Result<Option<(HttpVersion, Bytes)>> {
    let (mut bytes, mut len) = ([0; PREFACE.len()], 0);
    loop {
        let read = stream.read(&mut bytes[len..]).await?;
        len += read;
        let is_preface = PREFACE.starts_with(&bytes[..len]);
        let version = match is_preface {
            true if len == PREFACE.len() => HttpVersion::Http2,
            true if read == 0 => return Ok(None),
            true => continue,
            false => HttpVersion::Http1,
        };
        return Ok(Some((version, Bytes::copy_from_slice(&bytes[..len]))));
    }
}

impl AsyncRead for CallerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.has_unread = false;
        if !self.read_ahead.is_empty() {
            self.activity.set_unparsed();
            self.take_read_ahead(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let received = &buffer.filled()[before..];
        if let Some(frames) = &mut self.frames {
            frames.received.read(received);
        }
        if !received.is_empty()
            && let Some(changed) = self.activity.received(received)
        {
            buffer.set_filled(before);
            self.read_ahead = changed.into();
            self.take_read_ahead(buffer);
        }
        read
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let before = if this.substitute.is_none() { this.substitute(bytes) } else { bytes.len() };
        let written = if this.substitute.is_some() {
            this.poll_substitute(context, bytes)
        } else {
            let written = Pin::new(&mut this.stream).poll_write(context, &bytes[..before]);
            if let Poll::Ready(Ok(count)) = written {
                this.sent(&bytes[..count]);
            }
            written
        };
        this.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.substitute.is_some() || self.is_refusal(pieces) {
            // One piece at a time, until the response to replace comes next.
            let first = pieces.iter().find(|piece| !piece.is_empty());
            return self.poll_write(context, first.map_or(&[], |piece| &**piece));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        if let (Poll::Ready(Ok(count)), true) = (&written, self.frames.is_some()) {
            let mut left = *count;
            for piece in pieces {
                let sent = left.min(piece.len());
                self.sent(&piece[..sent]);
                left -= sent;
            }
        }
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look_for_end(context)?;
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Returns both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap());
        let (caller, accepted) = tokio::join!(caller, listener.accept());
        (caller.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn the_first_bytes_give_the_version_and_none_is_lost() {
        let differs = b"PRI * HTTP/2.0\r\n\r\nSX";
        for (sent, version) in [
            (&b"G"[..], HttpVersion::Http1),
            (b"PO", HttpVersion::Http1),
            (b"PROPFIND", HttpVersion::Http1),
            (differs, HttpVersion::Http1),
            (PREFACE, HttpVersion::Http2),
        ] {
            let (mut caller, mut stream) = pair().await;
            caller.set_nodelay(true).unwrap();
            let sends = async {
                for byte in sent {
                    caller.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (detected, ()) = tokio::join!(detect_version(&mut stream), sends);
            let (detected, read_ahead) = detected.unwrap().unwrap();
            assert_eq!(detected, version, "{sent:?}");
            caller.write_all(b", and more").await.unwrap();
            drop(caller);
            let mut all = Vec::new();
            let reject: Reject = Arc::new(|_, _| unreachable!("nothing is refused"));
            CallerStream::http1(stream, read_ahead, reject).read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [sent, b", and more"].concat());
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_its_version_is_known_has_none() {
        for sent in [&b""[..], b"P", &PREFACE[..23]] {
            let (mut caller, mut stream) = pair().await;
            caller.write_all(sent).await.unwrap();
            drop(caller);
            assert_eq!(detect_version(&mut stream).await.unwrap(), None, "{sent:?}");
        }
    }
}
