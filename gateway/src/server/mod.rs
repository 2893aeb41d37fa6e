//! Accepts connections and serves the requests on them, over HTTP/1.1 and HTTP/2. In the order of a
//! connection: its thread, its bytes, its version, its requests, its end.
//! Invariant: a connection that sends nothing, or too much, delays no other.

mod activity;
mod connection;
mod http2_frames;
mod linger;
mod rejection;
mod request_line;
mod stream;
mod threads;

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use waypost_serving::{listener, tasks::TaskSet};

use self::{connection::CallerConnection, rejection::Reject};
pub(crate) use self::{
    rejection::Rejected, request_line::EncodedPositions, threads::ServingThreads,
};

/// The stages of a shutdown, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// Ends the accept loop. Each connection of HTTP/1.1 serves one more request, with
    /// `Connection: close`: a request may be on its way when an idle connection closes. Connections
    /// of HTTP/2 announce their end.
    pub(crate) drain: CancellationToken,
    /// Closes idle connections.
    pub(crate) close_idle: CancellationToken,
    /// Closes all connections.
    pub(crate) abort: CancellationToken,
}

/// The time that callers have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For the head of a request.
    pub(crate) head: Duration,
    /// Until they take the next bytes of a response, over HTTP/1.1.
    pub(crate) send: Duration,
}

/// Accepts connections until the gateway drains, and serves each on the next of `runtimes`. The
/// connections go on after that, until they end or are closed.
pub(crate) async fn run<F, A>(
    listener: TcpListener,
    runtimes: impl Iterator<Item = Handle>,
    timeouts: Timeouts,
    connections: TaskSet,
    shutdown: Shutdown,
    respond: F,
    reject: impl Fn(SocketAddr, StatusCode, Version) -> Rejected + Clone + Send + Sync + 'static,
) where
    F: Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    for runtime in runtimes {
        let accept = listener::accept(&listener);
        let Some((stream, peer)) = shutdown.drain.run_until_cancelled(accept).await else { break };
        // The runtime that accepted it lets go of it.
        let Ok(stream) = stream.into_std() else { continue };
        let (shutdown, respond, reject) = (shutdown.clone(), respond.clone(), reject.clone());
        let respond = move |request| respond(peer, request);
        let reject: Reject = Arc::new(move |status, version| reject(peer, status, version));
        let abort = shutdown.abort.clone();
        let connection = CallerConnection { timeouts, shutdown, respond, reject, peer };
        connections.spawn_on(&runtime, "connection", async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection.run(stream) => {}
            }
        });
    }
}
