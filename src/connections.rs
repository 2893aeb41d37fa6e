//! Serves connections, each in a task of its own, until it is asked to stop and they have ended. What
//! HTTP allows a peer is decided here; what a request is, the gate decides.

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

use crate::{api::grpc::Gate, calls::Calls, tasks::Crowd};

/// How often a silent connection is asked whether it lives, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How connections are served.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(crate) gate: Arc<Gate>,
    /// Calls at a time on one connection.
    pub(crate) streams_max: usize,
    /// No new connections; those that are there finish what they have begun.
    pub(crate) leaving: CancellationToken,
    /// Cuts those that have not.
    pub(crate) cut: CancellationToken,
}

impl Connections {
    /// Serves all that come in until they end or it is time to leave, and then until the last one
    /// has ended.
    pub(crate) async fn serve<I>(self, incoming: impl Stream<Item = io::Result<I>>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let crowd = Crowd::default();
        {
            // Gone with the end of this: then nobody connects any more.
            let mut incoming = pin!(incoming);
            while let Some(Some(stream)) = self.leaving.run_until_cancelled(incoming.next()).await {
                match stream {
                    Ok(stream) => crowd.spawn(self.clone().serve_one(stream)),
                    Err(error) => debug!(%error, "a connection was not accepted"),
                }
            }
        }
        crowd.ended().await;
    }

    async fn serve_one<I>(self, stream: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { gate, streams_max, leaving, cut } = self;
        // Of its own, as all that wait for one token share a lock.
        let (leaving, cut) = (leaving.child_token(), cut.child_token());
        let calls = Calls::default();
        let mut server = auto::Builder::new(calls.clone());
        // The timer is for the time that a head of HTTP/1 may take. A peer that closed its side is answered.
        server.http1().timer(TokioTimer::new()).half_close(true);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(u32::try_from(streams_max).ok())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let service = service_fn(|request: Request<Incoming>| {
            let answer = gate.answer(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let open = calls.clone();
        let connection = async {
            let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
            select! {
                biased;
                ended = connection.as_mut() => return ended,
                () = leaving.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    // The gate has closed, and nobody told the streams.
                    open.look_again();
                }
            }
            select! {
                biased;
                ended = connection => ended,
                () = cut.cancelled() => Ok(()),
            }
        };
        if let Err(error) = calls.run(connection).await {
            debug!(%error, "a connection failed");
        }
    }
}
