//! A connection whose first bytes are there in time: those by which the versions of HTTP are told apart,
//! for which hyper would wait for ever. It must never end one that has begun to say something: what comes
//! after has bounds of its own.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct Prompt<S> {
    stream: S,
    /// Gone once the version is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How much of the preface was there.
    matched: usize,
}

impl<S> Prompt<S> {
    /// Reads of `stream` fail where its version can't be told after `timeout`.
    pub(crate) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, deadline: Some(Box::pin(sleep(timeout))), matched: 0 }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.matched..];
        if rest.starts_with(bytes) && bytes.len() < rest.len() {
            self.matched += bytes.len();
        } else {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else { return read };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.look_at(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
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
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// What is read of a connection that begins so, and then goes on `later`, after the deadline.
    async fn read(first: &[u8], later: &[u8]) -> io::Result<Vec<u8>> {
        let (mut caller, stream) = duplex(64);
        let mut prompt: Prompt<DuplexStream> = Prompt::new(stream, TIMEOUT);
        caller.write_all(first).await?;
        let says = async {
            sleep(2 * TIMEOUT).await;
            // Nobody may listen any more.
            let _heard = caller.write_all(later).await;
            drop(caller);
        };
        let mut bytes = Vec::new();
        let (read, ()) = tokio::join!(prompt.read_to_end(&mut bytes), says);
        read.map(|_| bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_in_time_is_not_read() {
        for first in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let error = read(first, b"GET").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{first:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_begun_may_go_on() {
        for first in [&b"G"[..], b"PO", PREFACE, b"PRI * HTTP/2.0\r\n\r\nSX"] {
            assert_eq!(read(first, b"ET").await.unwrap(), [first, b"ET"].concat());
        }
    }
}
