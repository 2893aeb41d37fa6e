//! The bytes of a connection of HTTP/1.1. Counts those that the instance sent, and goes on receiving where
//! the instance takes no more of a request: its response may be there already, and hyper would drop it for
//! the failed write.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Io;

/// How many bytes came over a connection since a call began. Written and read by the one task that drives
/// the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Received(Arc<AtomicUsize>);

impl Received {
    /// A call begins.
    pub(super) fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

pub(super) struct Wire {
    stream: TokioIo<Box<dyn Io>>,
    received: Received,
    /// Whether the instance takes no more.
    is_refused: bool,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Io>, received: Received) -> Self {
        Self { stream: TokioIo::new(stream), received, is_refused: false }
    }

    /// A write that fails because the instance closed the connection never ends: what there is to receive,
    /// the end of the connection at least, decides the call.
    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_refusal(&error) => {
                self.is_refused = true;
                Poll::Pending
            }
            written => written,
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl AsyncRead for Wire {
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

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_refused {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_refused {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
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
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn what_was_sent_before_a_reset_is_received_after_a_failed_write() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut instance, _) = listener.accept().await.unwrap();
        let received = Received::default();
        let mut wire = Wire::new(Box::new(TokioIo::new(stream)), received.clone());
        wire.write_all(b"never read").await.unwrap();
        instance.readable().await.unwrap();
        instance.write_all(b"no").await.unwrap();
        // With bytes that were not read: a reset.
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
        // It ends in an error, or not: that is up to the system.
        let _ended = wire.read_to_end(&mut read).await;
        assert_eq!(read, b"no");
        assert_eq!(received.bytes(), 2);
        received.reset();
        assert_eq!(received.bytes(), 0);
    }
}
