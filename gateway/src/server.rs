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

use crate::{guard, prompt::Prompt, tasks::Tasks};

/// How many bytes of a request's head are read.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// How many requests one connection of HTTP/2 may have under way.
const STREAMS_MAX: u32 = 1_000;
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

/// Serves what comes to `listener` until it is to leave; connections end by themselves after that. Heads
/// of requests have to be there within `head_timeout`.
pub(crate) async fn run<F, A>(
    listener: TcpListener,
    head_timeout: Duration,
    tasks: Tasks,
    ends: Ends,
    answer: F,
) where
    F: Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let leaving = ends.leaving.clone();
    while let Some(accepted) = leaving.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let (ends, answer) = (ends.clone(), answer.clone());
                let answer = move |request| answer(peer, request);
                tasks.spawn("connection", connection(stream, head_timeout, ends, answer));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken in");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<F, A>(stream: TcpStream, head_timeout: Duration, ends: Ends, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    // Small answers go at once; where that can't be had, they go later.
    let _later = stream.set_nodelay(true);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(guard::FIELDS_MAX)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        // Who says nothing is asked whether it lives.
        .keep_alive_interval(head_timeout)
        .keep_alive_timeout(head_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX);
    let stream = TokioIo::new(Prompt::new(stream, head_timeout));
    let serving = server.serve_connection_with_upgrades(stream, service_fn(answer));
    tokio::pin!(serving);
    tokio::select! {
        () = ends.closing.cancelled() => return,
        // Connections end as they like.
        _ended = serving.as_mut() => return,
        () = ends.leaving.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ended = ends.closing.run_until_cancelled(serving).await;
}
