//! An instance that answers everything and remembers what it was asked.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

/// A request whose body was whole.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
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

    /// What was asked since the last time.
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
) -> Result<Response<Full<Bytes>>, Infallible> {
    log.lock().unwrap().begun += 1;
    let (parts, body) = request.into_parts();
    if let Ok(body) = body.collect().await {
        let target = parts.uri.to_string();
        let body = body.to_bytes();
        let seen = Seen { method: parts.method, target, headers: parts.headers, body };
        log.lock().unwrap().whole.push(seen);
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"served"))))
}
