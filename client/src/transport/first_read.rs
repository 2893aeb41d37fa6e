//! The first byte that a server sends on a connection. In TLS 1.3 a server refuses a client's
//! certificate after the client's side of the handshake is complete: only a byte from the server
//! shows that the connection is open, and the error in its place has the reason.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::sync::oneshot;

/// The bytes to read after a failed write: an alert of TLS has fewer.
const RESCUE_BYTES: usize = 256;

/// A stream that reports the result of its first read.
pub(super) struct FirstRead<S> {
    stream: S,
    report: Option<oneshot::Sender<io::Result<()>>>,
}

impl<S> FirstRead<S> {
    /// Wraps a stream. Returns the report of its first read, too, which is missing if the stream is
    /// dropped before.
    pub(super) fn new(stream: S) -> (Self, oneshot::Receiver<io::Result<()>>) {
        let (report, reported) = oneshot::channel();
        (Self { stream, report: Some(report) }, reported)
    }

    /// Reports `result`, unless there was a report. Returns an equal error for the reader.
    fn report(&mut self, result: io::Result<()>) -> io::Result<()> {
        let Some(report) = self.report.take() else { return result };
        let copy = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // The connection may have been given up meanwhile.
        let _ = report.send(result);
        copy
    }
}

impl<S: Read + Unpin> FirstRead<S> {
    /// After a failed write: a peer that refused the connection may have sent the reason first.
    fn rescue_reason(&mut self, context: &mut Context<'_>) {
        if self.report.is_none() {
            return;
        }
        let mut bytes = [0; RESCUE_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut self.stream).poll_read(context, buffer.unfilled());
        if let Poll::Ready(Err(error)) = read {
            let _ = self.report(Err(error));
        }
    }
}

impl<S: Read + Unpin> Read for FirstRead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.report.is_none() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        // A buffer of its own, to see how much was read.
        let mut bytes = [0; RESCUE_BYTES];
        let limit = bytes.len().min(buffer.remaining());
        let mut first = ReadBuf::new(&mut bytes[..limit]);
        let read = Pin::new(&mut self.stream).poll_read(context, first.unfilled());
        let result = match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if first.filled().is_empty() => {
                let reason = "the server closed the connection";
                let _ = self.report(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
                Ok(())
            }
            Poll::Ready(Ok(())) => {
                buffer.put_slice(first.filled());
                self.report(Ok(()))
            }
            Poll::Ready(Err(error)) => self.report(Err(error)),
        };
        Poll::Ready(result)
    }
}

impl<S: Read + Write + Unpin> Write for FirstRead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Err(_))) {
            self.rescue_reason(context);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Err(_))) {
            self.rescue_reason(context);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        if matches!(written, Poll::Ready(Err(_))) {
            self.rescue_reason(context);
        }
        written
    }
}
