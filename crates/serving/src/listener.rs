//! Listening and accepting.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{Stream, stream};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};
use tracing::warn;

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

/// The connections that arrive at a listener, each with the address of its peer.
pub fn incoming(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<(TcpStream, Option<SocketAddr>)>> + Send {
    stream::unfold(listener, async |listener| {
        let (stream, peer) = accept(&listener).await;
        Some((Ok((stream, Some(peer))), listener))
    })
}
