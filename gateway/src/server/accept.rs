//! The accept loop: spreads connections over the threads.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tonic::body::Body;
use waypost_serving::{listener, tasks::TaskSet};

use super::{
    connection::{CallerConnection, Timeouts},
    rejection::{Reject, Rejected},
    shutdown::Shutdown,
};

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
        // Detached from the runtime that accepted it, and attached to that of its thread.
        let stream = stream.into_std();
        let (shutdown, respond, reject) = (shutdown.clone(), respond.clone(), reject.clone());
        let respond = move |request| respond(peer, request);
        let reject: Reject = Arc::new(move |status, version| reject(peer, status, version));
        let abort = shutdown.abort.clone();
        let connection = CallerConnection { timeouts, shutdown, respond, reject, peer };
        connections.spawn_on(&runtime, "connection", async move {
            let stream = match stream.and_then(TcpStream::from_std) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "moving a connection to its thread failed, closing it");
                    return;
                }
            };
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection.run(stream) => {}
            }
        });
    }
}
