//! A door before the registry in memory: TLS over TCP, or clear text over pipes for paused time. It
//! lets requests with known tokens in, and ends streams whose token is no longer known.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, body::Body};
use tower::ServiceExt;
use waypost_client::{fake::Registry, proto::WatchRequest};

/// What a door counted.
#[derive(Clone, Debug, Default)]
pub struct DoorCounts {
    /// Connections that completed their handshake, and those that are open.
    pub opened: usize,
    pub open: usize,
    pub handshakes_failed: usize,
    /// Requests by method.
    pub registrations: usize,
    pub refused: usize,
    /// Watches that began with a snapshot, and those that resumed.
    pub fresh_watches: usize,
    pub resumed_watches: usize,
    /// The values of `authorization`, in order, without repetitions.
    pub tokens: Vec<String>,
}

#[derive(Clone)]
pub struct Door {
    pub registry: Registry,
    parts: Arc<Parts>,
}

#[derive(Default)]
struct Parts {
    counts: Mutex<DoorCounts>,
    tls: Mutex<Option<TlsAcceptor>>,
    /// The tokens that are let in; all, and requests without one, while there are none.
    known: watch::Sender<BTreeSet<String>>,
}

impl Door {
    pub fn new() -> Self {
        Self { registry: Registry::new(), parts: Arc::default() }
    }

    /// Lets in only these tokens from now on.
    pub fn admit(&self, tokens: &[&str]) {
        let tokens = tokens.iter().map(|token| format!("Bearer {token}")).collect();
        self.parts.known.send_replace(tokens);
    }

    /// Serves new connections with another certificate.
    pub fn renew(&self, tls: TlsAcceptor) {
        *self.parts.tls.lock().unwrap() = Some(tls);
    }

    pub fn counts(&self) -> DoorCounts {
        self.parts.counts.lock().unwrap().clone()
    }

    fn count(&self, count: impl FnOnce(&mut DoorCounts)) {
        count(&mut self.parts.counts.lock().unwrap());
    }

    /// Serves over TLS at a port of this machine.
    pub async fn listen(&self, tls: TlsAcceptor) -> SocketAddr {
        self.renew(tls);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let door = door.clone();
                tokio::spawn(async move {
                    let tls = door.parts.tls.lock().unwrap().clone().unwrap();
                    match tls.accept(stream).await {
                        Ok(stream) => {
                            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                            door.serve(stream).await;
                        }
                        Err(_) => door.count(|counts| counts.handshakes_failed += 1),
                    }
                });
            }
        });
        address
    }

    /// A connector to this door without TLS, over pipes.
    pub fn connector(
        &self,
    ) -> impl tower::Service<Uri, Response = TokioIo<DuplexStream>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        let door = self.clone();
        tower::service_fn(move |_| {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let door = door.clone();
            tokio::spawn(async move { door.serve(far).await });
            std::future::ready(Ok(TokioIo::new(near)))
        })
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.count(|counts| {
            counts.opened += 1;
            counts.open += 1;
        });
        let door = self.clone();
        let service = service_fn(move |request| {
            let door = door.clone();
            async move { Ok::<_, Infallible>(door.answer(request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        // A client that is gone is no failure.
        let _ = connection.await;
        self.count(|counts| counts.open -= 1);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let token = request.headers().get("authorization");
        let token = token.map(|token| token.to_str().unwrap().to_owned()).unwrap_or_default();
        self.count(|counts| {
            if counts.tokens.last() != Some(&token) {
                counts.tokens.push(token.clone());
            }
        });
        let known = self.parts.known.subscribe();
        if !is_known(&known.borrow(), &token) {
            self.count(|counts| counts.refused += 1);
            return Status::unauthenticated("the token is not known").into_http();
        }
        let request = self.inspect(request).await;
        let response = self.registry.grpc().oneshot(request).await.unwrap();
        response.map(|body| Body::new(GuardedBody::new(body, known, token)))
    }

    /// Counts a request.
    async fn inspect(&self, request: Request<Incoming>) -> Request<Body> {
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        if method == "Register" {
            self.count(|counts| counts.registrations += 1);
        }
        if method != "Watch" {
            return request.map(Body::new);
        }
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return Request::from_parts(head, Body::empty());
        };
        let body = body.to_bytes();
        let watch = WatchRequest::decode(&body[5..]).unwrap();
        self.count(|counts| match watch.resume {
            None => counts.fresh_watches += 1,
            Some(_) => counts.resumed_watches += 1,
        });
        Request::from_parts(head, Body::new(http_body_util::Full::new(body)))
    }
}

fn is_known(known: &BTreeSet<String>, token: &str) -> bool {
    known.is_empty() || known.contains(token)
}

/// A response that ends with `UNAUTHENTICATED` once its token is no longer known.
struct GuardedBody {
    body: Body,
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl GuardedBody {
    fn new(body: Body, mut known: watch::Receiver<BTreeSet<String>>, token: String) -> Self {
        let revoked = Box::pin(async move {
            let _ = known.wait_for(|known| !is_known(known, &token)).await;
        });
        Self { body, revoked, ended: false }
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.revoked.as_mut().poll(context));
        self.ended = true;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "16".parse().unwrap());
        trailers.insert("grpc-message", "revoked".parse().unwrap());
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}
