//! Serves connections, each in its own task, until the server stops and they have ended. Sets the
//! limits of HTTP; the router handles the requests.

use std::{
    convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use futures_util::{FutureExt, Stream, StreamExt};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tracing::debug;
use waypost_serving::tasks::TaskSet;

use super::{
    calls::Calls,
    door::{Acquaintance, Closing, Door, DoorStream, End, Opened, Stranger, visited},
};
use crate::{
    api::Router,
    auth::{ConnectionGate, Gate, Peer, RightChanges},
};

/// The interval of HTTP/2 pings on an idle connection, and the time to wait for a response.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The bytes of a request's header fields, by HTTP/2's count.
const HEADER_LIST_MAX: u32 = 16 * 1024;
/// Streams that the peer has reset and that were not handled yet; at more, the connection ends.
const PENDING_RESETS_MAX: usize = 20;
/// Streams that were reset here for errors of the peer; at more, the connection ends.
const LOCAL_RESETS_MAX: usize = 1024;
/// The time to send the responses under way on a connection whose credentials were refused.
const REFUSED_MAX: Duration = Duration::from_secs(1);

/// The parameters of all connections.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(crate) router: Arc<Router>,
    pub(crate) door: Door,
    pub(crate) gate: Gate,
    /// Connections at a time; further ones wait.
    pub(crate) connections_max: usize,
    /// Concurrent calls on one connection.
    pub(crate) streams_max: usize,
    /// Stops new connections and requests; calls in flight finish.
    pub(crate) stop: CancellationToken,
    /// Closes connections with calls in flight.
    pub(crate) cut: CancellationToken,
}

impl Connections {
    /// Accepts connections, each with the address of its peer, until `incoming` ends or `stop` is
    /// cancelled, and serves them until the last one has ended.
    pub(crate) async fn serve<I>(
        self,
        incoming: impl Stream<Item = io::Result<(I, Option<SocketAddr>)>>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connections = TaskSet::default();
        let permits = Arc::new(Semaphore::new(self.connections_max.min(Semaphore::MAX_PERMITS)));
        {
            // Dropped at the end of this block, which closes the listener.
            let mut incoming = pin!(incoming);
            while let Some(Some(arrived)) = self.stop.run_until_cancelled(incoming.next()).await {
                let (stream, peer) = match arrived {
                    Ok(arrived) => arrived,
                    Err(error) => {
                        debug!(%error, "accepting a connection failed");
                        continue;
                    }
                };
                let permit = Arc::clone(&permits).acquire_owned();
                let Some(Ok(permit)) = self.stop.run_until_cancelled(permit).await else { break };
                let stranger = self.door.arrive(peer.map(|peer| peer.ip()));
                let serving = self.clone().serve_one(stream, peer, stranger, permit);
                connections.spawn("connection", serving);
            }
        }
        connections.ended().await;
    }

    /// Opens a connection, and makes its gate; `None`: it can't be opened, which is logged, or the
    /// server stops.
    async fn open<I>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        stranger: &Stranger,
        closing: &mut Closing,
    ) -> Option<(DoorStream<I>, ConnectionGate)>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = select! {
            biased;
            opened = self.door.open(stream, stranger) => opened,
            end = closing => {
                debug!(?peer, ?end, "closing a stranger");
                return None;
            }
            () = self.stop.cancelled() => return None,
        };
        let opened = opened.inspect_err(|error| {
            debug!(?peer, %error, "connection failed");
            if let Some(reason) = error.refusal() {
                self.gate.record_handshake(peer, reason);
            }
        });
        let Opened { stream, certificate } = opened.ok()?;
        let gate = self.gate.connect(Peer { address: peer, certificate });
        if gate.has_certified_caller() {
            stranger.acquaintance().known();
        }
        Some((stream, gate))
    }

    /// Opens a connection, and serves it to its end.
    async fn serve_one<I>(
        self,
        stream: I,
        peer: Option<SocketAddr>,
        stranger: Stranger,
        _permit: OwnedSemaphorePermit,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut closing = stranger.closing();
        // Child tokens, as all waiters of one token share a lock.
        let (stop, cut) = (self.stop.child_token(), self.cut.child_token());
        let opened = self.open(stream, peer, &stranger, &mut closing).await;
        let Some((stream, gate)) = opened else { return };
        let (calls, acquaintance) = (Calls::default(), stranger.acquaintance());
        let service = service_fn(|request: Request<Incoming>| {
            respond(&self.router, &gate, acquaintance, request).map(Ok::<_, Infallible>)
        });
        // Before the first stream, so that it meets every later change.
        let (open, changes) = (calls.clone(), gate.changes());
        let server = server(&calls, self.streams_max);
        let connection = async {
            let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
            let mut certificate_ends = pin!(certificate_end(&gate, changes, &open).fuse());
            loop {
                select! {
                    biased;
                    ended = connection.as_mut() => return ended,
                    end = &mut closing => {
                        debug!(?peer, ?end, "closing a stranger");
                        if end == End::Refused {
                            connection.as_mut().graceful_shutdown();
                            let _sent = timeout(REFUSED_MAX, connection).await;
                        }
                        return Ok(());
                    }
                    () = certificate_ends.as_mut() => connection.as_mut().graceful_shutdown(),
                    () = stop.cancelled() => break,
                }
            }
            if !acquaintance.is_open() {
                return Ok(());
            }
            connection.as_mut().graceful_shutdown();
            // The router has closed without waking the streams.
            open.poll_all();
            select! {
                biased;
                ended = connection => ended,
                _ = closing => Ok(()),
                () = cut.cancelled() => Ok(()),
            }
        };
        // Pinned here, as the future that runs it would reserve room for it twice.
        let ended = calls.run(pin!(connection)).await;
        let _ended = ended.inspect_err(|error| debug!(?peer, %error, "connection failed"));
    }
}

/// Identifies the caller of a request, and responds. The connection of a caller that is allowed
/// nothing does not stay.
fn respond(
    router: &Router,
    gate: &ConnectionGate,
    acquaintance: &Arc<Acquaintance>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + Send + use<> {
    let caller = gate.identify(&request);
    let visitor = match &caller {
        Ok(caller) if caller.is_known() => {
            acquaintance.known();
            None
        }
        Ok(_) => Some(Arc::clone(acquaintance)),
        Err(refusal) if refusal.is_unauthenticated() => {
            acquaintance.refused();
            None
        }
        Err(_) => None,
    };
    // A combinator, as an `async` block would reserve room for the call twice.
    router.respond(caller, request).map(|response| match visitor {
        Some(visitor) => visited(response, &visitor),
        None => response,
    })
}

/// Polls the open streams of a connection whenever a caller may have lost a right, so that they
/// end. Ready once the certificate of the connection is not accepted any more.
async fn certificate_end(gate: &ConnectionGate, mut changes: RightChanges<'_>, calls: &Calls) {
    loop {
        changes.next().await;
        calls.poll_all();
        if gate.has_ended() {
            return;
        }
    }
}

/// Makes the server of a connection, with the limits of HTTP.
fn server(calls: &Calls, streams_max: usize) -> auto::Builder<Calls> {
    let mut server = auto::Builder::new(calls.clone());
    // The timer bounds the head of an HTTP/1 request. A peer that closed its side still gets its
    // response.
    server.http1().timer(TokioTimer::new()).half_close(true);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(streams_max).ok())
        .max_header_list_size(HEADER_LIST_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    server
}
