//! The bytes of a connection, and what of them was read ahead: that tells the versions of HTTP apart, and
//! a connection that rests from one that has begun to say something. It must never lose any.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    refusals::{ReceivedFrames, Reject, Replacement, SentFrames},
    request_line::RequestLines,
    turns::Turns,
};

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) struct Wire {
    stream: TcpStream,
    /// Read, and not looked at yet.
    ahead: Bytes,
    /// Whether more was received than was read when the end was last looked for.
    has_more: bool,
    pub(super) turns: Arc<Turns>,
    reject: Reject,
    /// Of HTTP/2.
    frames: Option<Frames>,
    replacement: Option<Replacement>,
}

#[derive(Default)]
struct Frames {
    sent: SentFrames,
    received: ReceivedFrames,
}

/// Which version a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

impl Wire {
    /// Of a connection of HTTP/1.1, at the beginning of a request.
    pub(super) fn http1(stream: TcpStream, mut ahead: Bytes, reject: Reject) -> Self {
        let turns = Turns::new(RequestLines::new());
        if !ahead.is_empty()
            && let Some(changed) = turns.read(&ahead)
        {
            ahead = changed.into();
        }
        Self {
            stream,
            ahead,
            has_more: false,
            turns: Arc::new(turns),
            reject,
            frames: None,
            replacement: None,
        }
    }

    /// Of a connection of HTTP/2, of which `ahead` is the preface.
    pub(super) fn http2(stream: TcpStream, ahead: Bytes, reject: Reject) -> Self {
        let turns = Arc::new(Turns::new(RequestLines::unknown()));
        Self {
            stream,
            ahead,
            has_more: false,
            turns,
            reject,
            frames: Some(Frames::default()),
            replacement: None,
        }
    }

    fn read_ahead(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(count));
    }

    /// The byte stream, once all was read that was read ahead.
    pub(super) fn into_stream(self) -> TcpStream {
        debug_assert!(self.ahead.is_empty(), "hyper reads all before it waits");
        self.stream
    }

    /// Looks for the end of what the caller sends while its request is under way, as hyper does not.
    /// Fails where the connection was reset: then nobody waits for the response.
    fn look_for_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_known = self.turns.is_half_closed.load(Relaxed);
        if is_known || !self.ahead.is_empty() || !self.turns.is_under_way() {
            return Ok(());
        }
        if self.has_more {
            // The end is behind bytes that hyper does not read yet: the system reports it beside them.
            let ready = self.stream.ready(Interest::READABLE).now_or_never();
            if ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed())) {
                self.turns.is_half_closed.store(true, Relaxed);
            }
            return Ok(());
        }
        let mut byte = [0];
        match self.stream.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => self.turns.is_half_closed.store(true, Relaxed),
            Poll::Ready(Ok(_)) => self.has_more = true,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        Ok(())
    }

    fn written<T>(&self, written: Poll<T>) -> Poll<T> {
        self.turns.offered(written.is_ready());
        written
    }

    /// Returns true where these pieces, which are written next, hold an answer of hyper's own.
    fn is_refusal(&self, pieces: &[io::IoSlice<'_>]) -> bool {
        let Some(frames) = &self.frames else { return self.turns.is_quiet() };
        let mut sent = frames.sent;
        pieces.iter().any(|piece| {
            let holds_one = sent.reset_in(piece, &frames.received).is_some();
            sent.advance(piece);
            holds_one
        })
    }

    /// Replaces the answer of hyper's own that `bytes` begin with. Returns how many bytes come before the
    /// next one.
    fn replace(&mut self, bytes: &[u8]) -> usize {
        match &self.frames {
            Some(frames) => match frames.sent.reset_in(bytes, &frames.received) {
                Some((0, stream)) => {
                    self.replacement = Some(Replacement::of_reset(stream, &self.reject));
                    0
                }
                Some((before, _)) => before,
                None => bytes.len(),
            },
            None if self.turns.is_quiet() => {
                self.replacement = Replacement::of_head(bytes, &self.reject);
                bytes.len()
            }
            _ => bytes.len(),
        }
    }

    /// Writes what takes the place of bytes of hyper's. Ready with how many, once all of it is written.
    fn poll_replacement(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        while let Some(replacement) = &mut self.replacement {
            let rest = &replacement.bytes[replacement.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            replacement.written += count;
            if count == 0 {
                break;
            }
            if replacement.written == replacement.bytes.len() {
                let stands_for = replacement.stands_for.min(bytes.len());
                self.replacement = None;
                self.sent(&bytes[..stands_for]);
                return Poll::Ready(Ok(stands_for));
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

/// Which version a connection speaks, by what comes first on it, which is given back. `None`: it ends
/// before that can be told.
pub(super) async fn spoken(stream: &mut TcpStream) -> io::Result<Option<(Spoken, Bytes)>> {
    let (mut bytes, mut len) = ([0; PREFACE.len()], 0);
    loop {
        let read = stream.read(&mut bytes[len..]).await?;
        len += read;
        let is_preface = PREFACE.starts_with(&bytes[..len]);
        let spoken = match is_preface {
            true if len == PREFACE.len() => Spoken::Http2,
            true if read == 0 => return Ok(None),
            true => continue,
            false => Spoken::Http1,
        };
        return Ok(Some((spoken, Bytes::copy_from_slice(&bytes[..len]))));
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.has_more = false;
        if !self.ahead.is_empty() {
            self.turns.heard.store(true, Relaxed);
            self.read_ahead(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = &buffer.filled()[before..];
        if let Some(frames) = &mut self.frames {
            frames.received.read(came);
        }
        if !came.is_empty()
            && let Some(changed) = self.turns.read(came)
        {
            buffer.set_filled(before);
            self.ahead = changed.into();
            self.read_ahead(buffer);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let before = if this.replacement.is_none() { this.replace(bytes) } else { bytes.len() };
        let written = if this.replacement.is_some() {
            this.poll_replacement(context, bytes)
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
        if self.replacement.is_some() || self.is_refusal(pieces) {
            // One piece with each write, until the answer that is replaced is the next.
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
            self.turns.flushed();
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

    /// A connection, from both ends.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap());
        let (caller, accepted) = tokio::join!(caller, listener.accept());
        (caller.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn the_version_is_told_by_the_first_bytes_and_none_is_lost() {
        let differs = b"PRI * HTTP/2.0\r\n\r\nSX";
        for (said, version) in [
            (&b"G"[..], Spoken::Http1),
            (b"PO", Spoken::Http1),
            (b"PROPFIND", Spoken::Http1),
            (differs, Spoken::Http1),
            (PREFACE, Spoken::Http2),
        ] {
            let (mut caller, mut stream) = pair().await;
            caller.set_nodelay(true).unwrap();
            let says = async {
                for byte in said {
                    caller.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (heard, ()) = tokio::join!(spoken(&mut stream), says);
            let (spoken, ahead) = heard.unwrap().unwrap();
            assert_eq!(spoken, version, "{said:?}");
            caller.write_all(b", and more").await.unwrap();
            drop(caller);
            let mut all = Vec::new();
            let reject: Reject = Arc::new(|_, _| unreachable!("nothing is refused"));
            Wire::http1(stream, ahead, reject).read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [said, b", and more"].concat());
        }
    }

    #[tokio::test]
    async fn who_leaves_before_that_is_not_served() {
        for said in [&b""[..], b"P", &PREFACE[..23]] {
            let (mut caller, mut stream) = pair().await;
            caller.write_all(said).await.unwrap();
            drop(caller);
            assert_eq!(spoken(&mut stream).await.unwrap(), None, "{said:?}");
        }
    }
}
