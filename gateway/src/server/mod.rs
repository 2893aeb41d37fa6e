//! Takes connections in and serves the requests on them, in HTTP/1.1 and HTTP/2. It must never be held up
//! by a connection that says nothing, or too much.

mod connection;
mod linger;
mod refusals;
mod request_line;
mod threads;
mod turns;
mod wire;

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use self::{connection::Connection, refusals::Reject};
pub(crate) use self::{refusals::Rejected, request_line::EncodedAt, threads::Threads};
use waypost_serving::{listener, tasks::TaskSet};

/// When to stop.
#[derive(Clone)]
pub(crate) struct Ends {
    /// No more connections. Those of HTTP/1.1 answer one more request, with `Connection: close`: one that is
    /// closed while it is idle may have a request on its way. Those of HTTP/2 announce their end.
    pub(crate) leaving: CancellationToken,
    /// No more requests.
    pub(crate) idle: CancellationToken,
    /// At once.
    pub(crate) closing: CancellationToken,
}

/// How patient it is with callers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long the head of a request may take.
    pub(crate) head_timeout: Duration,
    /// How long they may take nothing of an answer, in HTTP/1.1.
    pub(crate) silence_max: Duration,
}

/// Serves what comes to `listener` until it is to leave, each connection on the next of these runtimes;
/// connections end by themselves after that.
pub(crate) async fn run<F, A>(
    listener: TcpListener,
    runtimes: impl Iterator<Item = Handle>,
    patience: Patience,
    connections: TaskSet,
    ends: Ends,
    answer: F,
    reject: impl Fn(SocketAddr, StatusCode, Version) -> Rejected + Clone + Send + Sync + 'static,
) where
    F: Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let leaving = ends.leaving.clone();
    for runtime in runtimes {
        let accepted = leaving.run_until_cancelled(listener::accept(&listener)).await;
        let Some((stream, peer)) = accepted else { break };
        let Ok(stream) = stream.into_std() else { continue };
        let (ends, answer) = (ends.clone(), answer.clone());
        let answer = move |request| answer(peer, request);
        let reject = reject.clone();
        let reject: Reject = Arc::new(move |status, version| reject(peer, status, version));
        let closing = ends.closing.clone();
        let connection = Connection { patience, ends, answer, reject, peer };
        connections.spawn_on(&runtime, "connection", async move {
            // Its bytes are moved by the runtime that it is served on.
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            tokio::select! {
                () = closing.cancelled() => {}
                () = connection.run(stream) => {}
            }
        });
    }
}
