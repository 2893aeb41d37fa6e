//! Listening and accepting: connections are bounded in number, and each must send its opening bytes
//! in time.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::warn;

/// The time that a new connection may stay silent.
const OPENING_MAX: Duration = Duration::from_secs(10);
/// Bytes that end the opening: HTTP/2's preface and the head of the first frame. A shorter request
/// of HTTP/1 is answered within [`OPENING_MAX`].
const OPENING_BYTES: usize = 24 + 9;
/// Connections that may wait to be accepted; the system may allow fewer. After a stall of the
/// process its clients reconnect all at once; those that find no room retry a second later, which
/// can be too late for a lease.
const BACKLOG: u32 = 4096;
/// The pause after a failure to accept, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listens on an address, and returns the address that it got: port 0 picks one. Must be called in
/// a tokio runtime.
///
/// Errors: the address can't be bound.
pub fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts a connection, with Nagle's algorithm off; retries while the system refuses, for instance
/// for too many open files. Cancel safe.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small responses must not wait for more to send with them. An error means that the
                // peer is gone, which the first read reports.
                let _error = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                if !failing {
                    warn!(%error, "accepting connections failed, retrying");
                }
                failing = true;
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The connections that arrive at a listener.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    stream::unfold(listener, async |listener| {
        let (stream, _) = accept(&listener).await;
        Some((Ok(stream), listener))
    })
}

/// At most `connections_max` of the connections at a time; further ones wait. Connections that are
/// still opening end when `stop` is cancelled.
pub fn limit<I>(
    incoming: impl Stream<Item = io::Result<I>> + Send,
    connections_max: usize,
    stop: CancellationToken,
) -> impl Stream<Item = io::Result<Accepted<I>>> + Send
where
    I: Send,
{
    let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    incoming.then(move |stream| {
        let (permits, stop) = (Arc::clone(&permits), stop.clone());
        async move {
            let stream = stream?;
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            Ok(Accepted {
                stream,
                opening: Some(Opening {
                    deadline: Box::pin(sleep(OPENING_MAX)),
                    stop: Box::pin(stop.cancelled_owned()),
                    bytes: 0,
                }),
                wrote: false,
                _permit: permit,
            })
        }
    })
}

/// A connection that counts towards the limit, and must open in time.
#[derive(Debug)]
pub struct Accepted<I> {
    stream: I,
    /// Present until enough bytes have arrived.
    opening: Option<Opening>,
    /// True after the first write.
    wrote: bool,
    _permit: OwnedSemaphorePermit,
}

/// The state of a connection that has not sent its opening bytes.
#[derive(Debug)]
struct Opening {
    deadline: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    bytes: usize,
}

impl<I: AsyncRead + Unpin> AsyncRead for Accepted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(opening) = &mut self.opening else { return read };
        if read.is_pending()
            && (opening.deadline.as_mut().poll(context).is_ready()
                || opening.stop.as_mut().poll(context).is_ready())
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        opening.bytes += buffer.filled().len() - before;
        if opening.bytes >= OPENING_BYTES {
            self.opening = None;
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Accepted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    /// Reports no vectored writes before the first write: h2 reads this once, then, and writes each
    /// frame from 256 bytes on by a system call of its own where writes are vectored, from 1 KiB on
    /// where they are not. Most changes lie between; smaller frames go out together.
    fn is_write_vectored(&self) -> bool {
        self.wrote && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
