//! Serves connections, each in its own task, until the server stops and they have ended. Sets the
//! limits of HTTP; the router handles the requests.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use waypost_serving::tasks::TaskSet;

use super::calls::Calls;
use crate::api::Router;

/// The interval of HTTP/2 pings on an idle connection, and the time to wait for a response.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The parameters of all connections.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(crate) router: Arc<Router>,
    /// Concurrent calls on one connection.
    pub(crate) streams_max: usize,
    /// Stops new connections and requests; calls in flight finish.
    pub(crate) stop: CancellationToken,
    /// Closes connections with calls in flight.
    pub(crate) cut: CancellationToken,
}

impl Connections {
    /// Accepts connections until `incoming` ends or `stop` is cancelled, and serves them until the
    /// last one has ended.
    pub(crate) async fn serve<I>(self, incoming: impl Stream<Item = io::Result<I>>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connections = TaskSet::default();
        {
            // Dropped at the end of this block, which closes the listener.
            let mut incoming = pin!(incoming);
            while let Some(Some(stream)) = self.stop.run_until_cancelled(incoming.next()).await {
                match stream {
                    Ok(stream) => connections.spawn("connection", self.clone().serve_one(stream)),
                    Err(error) => debug!(%error, "accepting a connection failed"),
                }
            }
        }
        connections.ended().await;
    }

    async fn serve_one<I>(self, stream: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, streams_max, stop, cut } = self;
        // Child tokens, as all waiters of one token share a lock.
        let (stop, cut) = (stop.child_token(), cut.child_token());
        let calls = Calls::default();
        let mut server = auto::Builder::new(calls.clone());
        // The timer bounds the head of an HTTP/1 request. A peer that closed its side still gets
        // its response.
        server.http1().timer(TokioTimer::new()).half_close(true);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(u32::try_from(streams_max).ok())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let service = service_fn(|request: Request<Incoming>| {
            let response = router.respond(request);
            async { Ok::<_, Infallible>(response.await) }
        });
        let open = calls.clone();
        let connection = async {
            let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
            select! {
                biased;
                ended = connection.as_mut() => return ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    // The router has closed without waking the streams.
                    open.poll_all();
                }
            }
            select! {
                biased;
                ended = connection => ended,
                () = cut.cancelled() => Ok(()),
            }
        };
        if let Err(error) = calls.run(connection).await {
            debug!(%error, "connection failed");
        }
    }
}
