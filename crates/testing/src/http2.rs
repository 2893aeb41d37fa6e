//! A client of plain HTTP/2, which sends any path, any header and any bytes.

use std::{convert::Infallible, net::SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::{Code, Status};

use crate::wait::soon;

/// A body of a request.
pub type RawBody = UnsyncBoxBody<Bytes, Infallible>;

/// Limit on the headers of a response, as ordinary clients have it.
pub const HEADER_BYTES_MAX: u32 = 8 * 1024;

/// An HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct RawClient {
    sender: http2::SendRequest<RawBody>,
    address: SocketAddr,
}

/// A complete response.
#[derive(Debug)]
pub struct RawResponse {
    /// The status of HTTP.
    pub http: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The trailers; empty if there are none.
    pub trailers: HeaderMap,
}

impl RawResponse {
    /// Returns the gRPC status from the trailers or the headers.
    pub fn status(&self) -> Status {
        Status::from_header_map(&self.trailers)
            .or_else(|| Status::from_header_map(&self.headers))
            .unwrap_or_else(|| Status::new(Code::Unknown, format!("no gRPC status: {self:?}")))
    }

    /// Returns the size of the status as header limits count it (RFC 9113, section 6.5.2).
    pub fn status_bytes(&self) -> usize {
        let bytes = |headers: &HeaderMap| -> usize {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
        };
        bytes(&self.headers).max(bytes(&self.trailers))
    }
}

/// Returns a message behind the length prefix of gRPC.
///
/// # Panics
/// If the message is larger than 4 GiB.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message of less than 4 GiB");
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.put_slice(message);
    bytes.freeze()
}

/// Returns a body of one piece.
pub fn full(bytes: Bytes) -> RawBody {
    Full::new(bytes).boxed_unsync()
}

impl RawClient {
    /// Opens a connection.
    ///
    /// # Panics
    /// If the server accepts no connection soon.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("connected");
        stream.set_nodelay(true).expect("an option of the socket");
        Self::over(stream, address).await.expect("HTTP/2")
    }

    /// Begins HTTP/2 on a stream to an address, which may be that of TLS.
    ///
    /// # Errors
    /// The stream is closed.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) -> hyper::Result<Self> {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = soon("a handshake", handshake).await?;
        tokio::spawn(async move {
            // Its error shows in the responses.
            let _ended = connection.await;
        });
        Ok(Self { sender, address })
    }

    /// Sends a gRPC request with a body of any bytes.
    ///
    /// # Panics
    /// If no response comes.
    pub async fn grpc(&mut self, path: &str, body: Bytes) -> RawResponse {
        self.send(path, "application/grpc", full(body)).await.expect("a response")
    }

    /// Sends a POST request with a content type.
    ///
    /// # Errors
    /// The connection or the stream is closed.
    pub async fn send(
        &mut self,
        path: &str,
        content_type: &str,
        body: RawBody,
    ) -> hyper::Result<RawResponse> {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(body)
            .expect("a request");
        self.request(request).await
    }

    /// Sends a request and collects its response.
    ///
    /// # Errors
    /// The connection or the stream is closed.
    pub async fn request(&mut self, request: Request<RawBody>) -> hyper::Result<RawResponse> {
        soon("room for a request", self.sender.ready()).await?;
        let response = soon("a response", self.sender.send_request(request)).await?;
        let (parts, body) = response.into_parts();
        let collected = soon("the rest of a response", body.collect()).await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        Ok(RawResponse { http: parts.status, headers: parts.headers, body, trailers })
    }
}
