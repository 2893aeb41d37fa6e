//! Takes connections: bounded in number, and each has to say something soon.

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

/// How long a new connection may keep silent.
const OPENING_MAX: Duration = Duration::from_secs(10);
/// Bytes that end the opening: HTTP/2's preface and the head of the first frame. A shorter request
/// of HTTP/1 is answered before the time is over.
const OPENING_BYTES: usize = 24 + 9;
/// Connections that may wait to be accepted; the system may allow fewer. When the server stood still,
/// clients gave up theirs and began others: those who find no room come back a second later, which
/// can be too late for a lease.
const WAITING_MAX: u32 = 4096;
/// How long to wait after a failure to accept, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The connections that arrive at a listener.
pub(crate) fn tcp(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    stream::unfold((listener, false), async |(listener, mut failing)| {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Small answers must not wait for more to send with them.
                    let stream = stream.set_nodelay(true).map(|()| stream);
                    return Some((stream, (listener, false)));
                }
                Err(error) => {
                    if !failing {
                        warn!(%error, "connections can't be accepted");
                    }
                    failing = true;
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    })
}

/// At most `connections_max` of the connections at a time; further ones wait. Those that have not
/// opened end when `leaving` is cancelled.
pub(crate) fn bounded<I>(
    incoming: impl Stream<Item = io::Result<I>> + Send,
    connections_max: usize,
    leaving: CancellationToken,
) -> impl Stream<Item = io::Result<Connection<I>>> + Send
where
    I: Send,
{
    let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    incoming.then(move |stream| {
        let (permits, leaving) = (Arc::clone(&permits), leaving.clone());
        async move {
            let stream = stream?;
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            Ok(Connection {
                stream,
                opening: Some(Opening {
                    time: Box::pin(sleep(OPENING_MAX)),
                    leaving: Box::pin(leaving.cancelled_owned()),
                    bytes: 0,
                }),
                wrote: false,
                _permit: permit,
            })
        }
    })
}

/// A connection that is counted, and has to open in time.
#[derive(Debug)]
pub(crate) struct Connection<I> {
    stream: I,
    /// Runs until enough has come in.
    opening: Option<Opening>,
    /// Whether anything was written.
    wrote: bool,
    _permit: OwnedSemaphorePermit,
}

/// A connection that has not said what it is.
#[derive(Debug)]
struct Opening {
    time: Pin<Box<Sleep>>,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    bytes: usize,
}

impl<I: AsyncRead + Unpin> AsyncRead for Connection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(opening) = &mut self.opening else { return read };
        if read.is_pending()
            && (opening.time.as_mut().poll(context).is_ready()
                || opening.leaving.as_mut().poll(context).is_ready())
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

impl<I: AsyncWrite + Unpin> AsyncWrite for Connection<I> {
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

    /// HTTP/2 asks once before it writes anything, and by that decides from which size on a frame is
    /// written by itself, a system call each: 256 bytes where writes are vectored, which most changes
    /// have, or 1 KiB. Smaller ones go out together. What is as large is written from where it lies.
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

/// The address that a listener got.
pub(crate) fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(WAITING_MAX)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
