//! The bytes of a connection past the door.
//! Invariant: clear text costs no copy and no system call more than the stream below it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{
    handshake::{FirstByte, HANDSHAKE_RECORD},
    strangers::Acquaintance,
};

/// Bytes that end the opening: HTTP/2's preface and the head of the first frame.
const OPENING_BYTES: usize = 24 + 9;

/// Bytes that a stranger may send until something is allowed to it: more than five heads of
/// requests with a credential each.
const STRANGER_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a stranger after which its task yields: a flood of small frames delays no other
/// connection for long, and the gate sees a request before its whole body is read.
const STRANGER_BYTES_AT_ONCE: usize = 16 * 1024;

/// A connection, in clear text or by TLS.
#[derive(Debug)]
pub(crate) struct DoorStream<I> {
    bytes: Transport<I>,
    /// Present until the caller is known.
    counter: Option<StrangerBytes>,
    /// True after the first write.
    wrote: bool,
}

#[derive(Debug)]
enum Transport<I> {
    ClearText(I),
    Tls(Box<TlsStream<FirstByte<I>>>),
}

/// The bytes of a connection whose caller is not known.
#[derive(Debug)]
struct StrangerBytes {
    acquaintance: Arc<Acquaintance>,
    bytes: usize,
    /// Those since the task has yielded.
    at_once: usize,
}

/// The state of a connection after a read.
enum CountedStream {
    Stranger,
    Known,
    TooMuch,
}

impl StrangerBytes {
    fn add(&mut self, count: usize) -> CountedStream {
        let was_open = self.bytes >= OPENING_BYTES;
        self.bytes += count;
        self.at_once += count;
        if !was_open && self.bytes >= OPENING_BYTES {
            self.acquaintance.opened();
        }
        if self.acquaintance.is_known() {
            return CountedStream::Known;
        }
        if self.bytes <= STRANGER_BYTES_MAX {
            return CountedStream::Stranger;
        }
        if !self.acquaintance.has_visits() {
            return CountedStream::TooMuch;
        }
        // An allowed call is under way: from its end on, the caller has as much again.
        self.bytes = OPENING_BYTES;
        CountedStream::Stranger
    }
}

impl<I> DoorStream<I> {
    pub(super) fn clear_text(stream: I, acquaintance: &Arc<Acquaintance>) -> Self {
        Self::new(Transport::ClearText(stream), acquaintance)
    }

    pub(super) fn tls(stream: TlsStream<FirstByte<I>>, acquaintance: &Arc<Acquaintance>) -> Self {
        Self::new(Transport::Tls(Box::new(stream)), acquaintance)
    }

    fn new(bytes: Transport<I>, acquaintance: &Arc<Acquaintance>) -> Self {
        let acquaintance = Arc::clone(acquaintance);
        let counter = StrangerBytes { acquaintance, bytes: 0, at_once: 0 };
        Self { bytes, counter: Some(counter), wrote: false }
    }
}

fn invalid(reason: &'static str) -> Poll<io::Result<()>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)))
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for DoorStream<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(counter) = &mut this.counter
            && counter.at_once >= STRANGER_BYTES_AT_ONCE
            && !counter.acquaintance.is_known()
        {
            counter.at_once = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = match &mut this.bytes {
            Transport::ClearText(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let Some(counter) = &mut this.counter else { return read };
        let new = &buffer.filled()[before..];
        if counter.bytes == 0
            && new.first() == Some(&HANDSHAKE_RECORD)
            && matches!(this.bytes, Transport::ClearText(_))
        {
            return invalid("TLS on a port that speaks clear text only");
        }
        match counter.add(new.len()) {
            CountedStream::Stranger => {}
            CountedStream::Known => this.counter = None,
            CountedStream::TooMuch => return invalid("a stranger sent over 128 KiB"),
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for DoorStream<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.wrote = true;
        match &mut this.bytes {
            Transport::ClearText(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.wrote = true;
        match &mut this.bytes {
            Transport::ClearText(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    /// Reports no vectored writes before the first write: h2 reads this once, then, and writes each
    /// frame from 256 bytes on by a system call of its own where writes are vectored, from 1 KiB on
    /// where they are not. Most changes lie between; smaller frames go out together, in one record
    /// where there is TLS.
    fn is_write_vectored(&self) -> bool {
        self.wrote
            && match &self.bytes {
                Transport::ClearText(stream) => stream.is_write_vectored(),
                Transport::Tls(stream) => stream.is_write_vectored(),
            }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().bytes {
            Transport::ClearText(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().bytes {
            Transport::ClearText(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
