//! An instance that responds to everything and records requests.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

type Answer = BoxBody<Bytes, Infallible>;

/// A request whose body was whole.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Heads.
    pub begun: usize,
    /// Heads with all of their body.
    pub whole: usize,
}

#[derive(Default)]
struct Log {
    begun: usize,
    whole: Vec<Seen>,
}

pub struct Upstream {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::default();
        tokio::spawn(serve(listener, Arc::clone(&log)));
        Self { address, log }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counts(&self) -> Counts {
        let log = self.log.lock().unwrap();
        Counts { begun: log.begun, whole: log.whole.len() }
    }

    /// The requests since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.log.lock().unwrap().whole)
    }
}

async fn serve(listener: TcpListener, log: Arc<Mutex<Log>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&log)));
            let server = auto::Builder::new(TokioExecutor::new());
            // Connections end as they like.
            let _ended = server.http1_only().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Log>>,
) -> Result<Response<Answer>, Infallible> {
    log.lock().unwrap().begun += 1;
    let (parts, body) = request.into_parts();
    let target = parts.uri.to_string();
    if let Ok(body) = body.collect().await {
        let trailers = body.trailers().cloned().unwrap_or_default();
        let (target, body) = (target.clone(), body.to_bytes());
        let seen = Seen { method: parts.method, target, headers: parts.headers, body, trailers };
        log.lock().unwrap().whole.push(seen);
    }
    Ok(match target.as_str() {
        "/switched" => switched(),
        "/trailed" => trailed(),
        "/endless" => endless(),
        _ => Response::new(Full::new(Bytes::from_static(b"served")).boxed()),
    })
}

/// An upgrade without a request for it.
fn switched() -> Response<Answer> {
    let mut answer = Response::new(Answer::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
    answer
}

/// An endless response.
fn endless() -> Response<Answer> {
    let piece = || Ok(Frame::data(Bytes::from_static(&[b'a'; 64 * 1024])));
    Response::new(BodyExt::boxed(StreamBody::new(stream::repeat_with(piece))))
}

/// A response with trailers.
fn trailed() -> Response<Answer> {
    let names = ["x-checksum", "x-forwarded-for", "x-waypost-subject"];
    let trailers = names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("7")));
    let frames = [
        Frame::data(Bytes::from_static(b"served")),
        Frame::trailers(trailers.into_iter().collect()),
    ];
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok)))));
    answer.headers_mut().insert("trailer", HeaderValue::try_from(names.join(", ")).unwrap());
    answer
}
