//! Callers: each request over a connection of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tonic::body::Body;

use super::{body::read, soon};

/// Speaks to a server in one version of HTTP.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    Http1(SocketAddr),
    Http2(SocketAddr),
}

impl Caller {
    /// Sends a request whose URI is a path. Its host is the header `Host`, or the server's address.
    pub async fn send(self, request: Request<Body>) -> Response<Incoming> {
        soon(self.try_send(request)).await.unwrap()
    }

    pub async fn try_send(
        self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let address = self.address();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let host = request.headers_mut().remove(header::HOST);
        let host = host.unwrap_or_else(|| address.to_string().parse().unwrap());
        match self {
            Self::Http1(_) => {
                request.headers_mut().insert(header::HOST, host);
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection.with_upgrades());
                sender.send_request(request).await
            }
            Self::Http2(_) => {
                let mut uri = std::mem::take(request.uri_mut()).into_parts();
                uri.scheme = Some("http".parse().unwrap());
                uri.authority = Some(host.to_str().unwrap().parse().unwrap());
                *request.uri_mut() = Uri::from_parts(uri).unwrap();
                let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
                let (mut sender, connection) = handshake.await?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        }
    }

    fn address(self) -> SocketAddr {
        match self {
            Self::Http1(address) | Self::Http2(address) => address,
        }
    }
}

/// A response with its whole body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Reads a response to its end.
pub async fn whole(answer: Response<Incoming>) -> Answer {
    let (head, body) = answer.into_parts();
    let (body, trailers) = read(body).await;
    Answer { status: head.status, headers: head.headers, body, trailers }
}
