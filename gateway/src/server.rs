//! Takes connections in and serves the requests on them, in HTTP/1.1 and HTTP/2. It must never be held up
//! by a connection that says nothing, or too much.

use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::{guard, tasks::Tasks};

/// How long the head of a request may take to come.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How many bytes of a request's head are read.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// How many requests one connection of HTTP/2 may have under way.
const STREAMS_MAX: u32 = 1_000;
/// After so long without a word a connection of HTTP/2 is asked whether it lives.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long to wait where no connection can be taken in, for want of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// When to stop.
#[derive(Clone)]
pub(crate) struct Ends {
    /// No more connections, and no more requests on those that there are.
    pub(crate) leaving: CancellationToken,
    /// At once.
    pub(crate) closing: CancellationToken,
}

/// Serves what comes to `listener` until it is to leave; connections end by themselves after that.
pub(crate) async fn run<F, A>(listener: TcpListener, tasks: Tasks, ends: Ends, answer: F)
where
    F: Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let leaving = ends.leaving.clone();
    while let Some(accepted) = leaving.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, ends.clone(), answer.clone());
                tasks.spawn("connection", connection);
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken in");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<F, A>(stream: TcpStream, peer: SocketAddr, ends: Ends, answer: F)
where
    F: Fn(SocketAddr, Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    // Small answers go at once; where that can't be had, they go later.
    let _later = stream.set_nodelay(true);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(guard::FIELDS_MAX)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(SILENCE_MAX)
        .keep_alive_timeout(HEAD_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX);
    let service = service_fn(move |request| answer(peer, request));
    let serving = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        () = ends.closing.cancelled() => return,
        // Connections end as they like.
        _ended = serving.as_mut() => return,
        () = ends.leaving.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ended = ends.closing.run_until_cancelled(serving).await;
}
