//! HTTP/2 without gRPC's manners: any path, any header, any bytes.

use std::{convert::Infallible, net::SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::soon;

pub(crate) type RawBody = UnsyncBoxBody<Bytes, Infallible>;

/// Ordinary clients take no more header bytes than this.
pub(crate) const HEADER_BYTES_MAX: u32 = 8 * 1024;

/// A connection.
#[derive(Clone)]
pub(crate) struct RawClient {
    sender: http2::SendRequest<RawBody>,
    address: SocketAddr,
}

/// What a request came to.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) http: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl RawAnswer {
    /// The gRPC status, wherever it stands.
    pub(crate) fn status(&self) -> Status {
        Status::from_header_map(&self.trailers)
            .or_else(|| Status::from_header_map(&self.headers))
            .unwrap_or_else(|| Status::new(Code::Unknown, format!("no gRPC status: {self:?}")))
    }

    /// How large the status is as header limits count (RFC 9113, section 6.5.2).
    pub(crate) fn status_bytes(&self) -> usize {
        let bytes = |headers: &HeaderMap| -> usize {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
        };
        bytes(&self.headers).max(bytes(&self.trailers))
    }
}

/// The message with the header that gRPC puts before it.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message of a test");
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.put_slice(message);
    bytes.freeze()
}

pub(crate) fn full(bytes: Bytes) -> RawBody {
    Full::new(bytes).boxed_unsync()
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("connected");
        stream.set_nodelay(true).expect("small requests do not wait");
        let handshake = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = soon("a handshake", handshake).await.expect("HTTP/2");
        tokio::spawn(async move {
            // How it ends shows in the answers.
            let _ended = connection.await;
        });
        Self { sender, address }
    }

    /// A gRPC request with the given bytes as its body.
    pub(crate) async fn grpc(&mut self, path: &str, body: Bytes) -> RawAnswer {
        self.send(path, "application/grpc", full(body)).await.expect("an answer")
    }

    pub(crate) async fn send(
        &mut self,
        path: &str,
        content_type: &str,
        body: RawBody,
    ) -> hyper::Result<RawAnswer> {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(body)
            .expect("a request");
        self.request(request).await
    }

    pub(crate) async fn request(&mut self, request: Request<RawBody>) -> hyper::Result<RawAnswer> {
        soon("room for a request", self.sender.ready()).await?;
        let response = soon("an answer", self.sender.send_request(request)).await?;
        let (parts, body) = response.into_parts();
        let collected = soon("the rest of an answer", body.collect()).await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        Ok(RawAnswer { http: parts.status, headers: parts.headers, body, trailers })
    }
}
