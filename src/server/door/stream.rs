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

/// A connection, in clear text or by TLS.
#[derive(Debug)]
pub(crate) struct DoorStream<I> {
    bytes: Transport<I>,
    /// Present until enough bytes have arrived.
    opening: Option<Opening>,
    /// True after the first write.
    wrote: bool,
}

#[derive(Debug)]
enum Transport<I> {
    ClearText(I),
    Tls(Box<TlsStream<FirstByte<I>>>),
}

/// The state of a connection that has not sent its opening bytes.
#[derive(Debug)]
struct Opening {
    acquaintance: Arc<Acquaintance>,
    bytes: usize,
}

impl<I> DoorStream<I> {
    pub(super) fn clear_text(stream: I, acquaintance: &Arc<Acquaintance>) -> Self {
        Self::new(Transport::ClearText(stream), acquaintance)
    }

    pub(super) fn tls(stream: TlsStream<FirstByte<I>>, acquaintance: &Arc<Acquaintance>) -> Self {
        Self::new(Transport::Tls(Box::new(stream)), acquaintance)
    }

    fn new(bytes: Transport<I>, acquaintance: &Arc<Acquaintance>) -> Self {
        let opening = Opening { acquaintance: Arc::clone(acquaintance), bytes: 0 };
        Self { bytes, opening: Some(opening), wrote: false }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for DoorStream<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.bytes {
            Transport::ClearText(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let Some(opening) = &mut this.opening else { return read };
        let new = &buffer.filled()[before..];
        if opening.bytes == 0
            && new.first() == Some(&HANDSHAKE_RECORD)
            && matches!(this.bytes, Transport::ClearText(_))
        {
            let reason = "TLS on a port that speaks clear text only";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
        }
        opening.bytes += new.len();
        if opening.bytes >= OPENING_BYTES {
            opening.acquaintance.opened();
            this.opening = None;
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
