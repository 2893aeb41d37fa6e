//! A caller of any method, over HTTP/2 or HTTP/1.1, in clear text or over TLS.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tonic::{Code, Status};
use waypost_testing::{
    http2::{RawBody, framed, full},
    wait::soon,
};

use super::reason;

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// The part of a response that a caller reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    All,
    /// The first message of a stream, if there is one.
    FirstMessage,
}

/// A response, or as much of it as was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: StatusCode,
    pub(crate) headers: HeaderMap,
    /// OK after a message without a status.
    pub(crate) status: Status,
    /// The bytes that were read of the body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns the code and the machine's reason.
    pub(crate) fn outcome(&self) -> (Code, Option<String>) {
        (self.status.code(), reason(&self.status))
    }
}

/// The caller. Connects when it calls, and again after its connection was closed.
pub(crate) struct RawCaller {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<TlsConnector>,
    /// Headers of each request.
    headers: Vec<(header::HeaderName, String)>,
    /// The authority of HTTP/2 and the host of HTTP/1.1.
    authority: String,
    pub(crate) content_type: &'static str,
    sender: Option<Sender>,
}

enum Sender {
    One(http1::SendRequest<RawBody>),
    Two(http2::SendRequest<RawBody>),
}

/// The reason why no response came.
#[derive(Debug, Error)]
enum CallError {
    #[error(transparent)]
    Connect(#[from] io::Error),
    #[error("{0:?}")]
    Http(#[from] hyper::Error),
}

impl CallError {
    /// Returns whether the request was not sent.
    fn is_canceled(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_canceled())
    }
}

impl RawCaller {
    pub(crate) fn new(address: SocketAddr, protocol: Protocol, tls: Option<TlsConnector>) -> Self {
        let authority = address.to_string();
        let content_type = "application/grpc";
        Self { address, protocol, tls, headers: Vec::new(), authority, content_type, sender: None }
    }

    /// Adds a token to each request.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.headers.push((header::AUTHORIZATION, format!("Bearer {token}")));
        self
    }

    /// Adds a header to each request.
    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sets the authority of HTTP/2 and the host of HTTP/1.1.
    pub(crate) fn to(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.authority);
        self
    }

    /// Closes the connection.
    pub(crate) fn disconnect(&mut self) {
        self.sender = None;
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let is_open = |sender: &Option<Sender>| match sender {
            None => false,
            Some(Sender::One(sender)) => !sender.is_closed(),
            Some(Sender::Two(sender)) => !sender.is_closed(),
        };
        while is_open(&self.sender) {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Calls a method with one message.
    pub(crate) async fn grpc(&mut self, method: &str, message: &[u8], reading: Reading) -> Answer {
        self.send(&format!("/{method}"), framed(message), reading).await.expect("a response")
    }

    /// Sends a gRPC request with a body of any bytes.
    pub(crate) async fn send(
        &mut self,
        path: &str,
        body: Bytes,
        reading: Reading,
    ) -> io::Result<Answer> {
        let response = match soon("a response", self.respond(path, &body)).await {
            // The server closed a connection of HTTP/1.1 before it got the request.
            Err(error) if error.is_canceled() && self.protocol == Protocol::Http1 => {
                self.disconnect();
                soon("a response", self.respond(path, &body)).await
            }
            response => response,
        };
        let response = response.map_err(io::Error::other)?;
        let answer = soon("the rest of a response", read(response, reading)).await?;
        let has_rest = reading == Reading::FirstMessage || answer.status.code() != Code::Ok;
        if self.protocol == Protocol::Http1 && has_rest {
            // The rest of the stream is on the way, or the body was not read.
            self.disconnect();
        }
        Ok(answer)
    }

    fn request(&self, path: &str, body: Bytes) -> Request<RawBody> {
        let (uri, version) = match self.protocol {
            Protocol::Http1 => (path.to_owned(), Version::HTTP_11),
            Protocol::Http2 => (format!("http://{}{path}", self.authority), Version::HTTP_2),
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .version(version)
            .header(header::CONTENT_TYPE, self.content_type)
            .header(header::TE, "trailers");
        if self.protocol == Protocol::Http1 {
            request = request.header(header::HOST, &self.authority);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(full(body)).expect("a request")
    }

    async fn respond(
        &mut self,
        path: &str,
        body: &Bytes,
    ) -> Result<http::Response<Incoming>, CallError> {
        let request = self.request(path, body.clone());
        let is_ready = match &mut self.sender {
            None => false,
            Some(Sender::One(sender)) => sender.ready().await.is_ok(),
            Some(Sender::Two(sender)) => sender.ready().await.is_ok(),
        };
        if !is_ready {
            self.sender = Some(self.connect().await?);
        }
        Ok(match self.sender.as_mut().expect("connected") {
            Sender::One(sender) => sender.send_request(request).await?,
            Sender::Two(sender) => sender.send_request(request).await?,
        })
    }

    async fn connect(&self) -> io::Result<Sender> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return self.handshake(stream).await };
        let name = ServerName::from(self.address.ip());
        self.handshake(tls.connect(name, stream).await?).await
    }

    async fn handshake<I>(&self, stream: I) -> io::Result<Sender>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        // The error of a connection shows in its responses.
        Ok(match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) =
                    http1::handshake(stream).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Sender::One(sender)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) =
                    http2::handshake(executor, stream).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        })
    }
}

async fn read(response: http::Response<Incoming>, reading: Reading) -> io::Result<Answer> {
    let (parts, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if reading == Reading::FirstMessage && !bytes.is_empty() {
            break;
        }
    }
    // A message counts as OK, as the trailers do not come with HTTP/1.1.
    let code = if bytes.is_empty() { Code::Unknown } else { Code::Ok };
    let status = Status::from_header_map(&trailers)
        .or_else(|| Status::from_header_map(&parts.headers))
        .unwrap_or_else(|| Status::new(code, "no gRPC status"));
    Ok(Answer { http: parts.status, headers: parts.headers, status, body: bytes.into() })
}
