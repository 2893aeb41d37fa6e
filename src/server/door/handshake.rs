//! The handshake of a connection, from its first byte.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use waypost_auth::certificate::PeerCertificate;

use super::{DoorError, clear_text, linger::linger};
use crate::auth::TlsContext;

/// The first byte of a connection that speaks TLS: the type of a record with a handshake message.
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;

/// Reads the first byte, and makes the handshake, or answers clear text.
pub(super) async fn handshake<I>(
    mut stream: I,
    tls: &TlsContext,
) -> Result<(TlsStream<FirstByte<I>>, Option<Arc<PeerCertificate>>), DoorError>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let first = stream.read_u8().await.map_err(|_| DoorError::Silent)?;
    if first != HANDSHAKE_RECORD {
        clear_text::refuse(stream, first).await;
        return Err(DoorError::ClearText);
    }
    let stream = FirstByte { first: Some(first), stream };
    let stream = match tls.acceptor().accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            // The caller of TLS 1.3 sends requests before it reads that it is refused.
            linger(stream).await;
            return Err(DoorError::Handshake(error));
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.map(|chain| Arc::new(tls.roots().accepted(chain)));
    Ok((stream, certificate))
}

/// A stream of which the first byte was read already.
#[derive(Debug)]
pub(crate) struct FirstByte<I> {
    /// Given back by the first read.
    first: Option<u8>,
    stream: I,
}

impl<I: AsyncRead + Unpin> AsyncRead for FirstByte<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // The first byte is there, whatever follows; an error is found by the next read.
            let _rest = Pin::new(&mut self.stream).poll_read(context, buffer);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FirstByte<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
