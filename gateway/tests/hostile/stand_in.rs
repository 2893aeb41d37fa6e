//! The least that is a gateway: hyper with its bounds, the guard, and a connection to the instance for
//! each request.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header::CONNECTION};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use waypost_gateway::{guard, hop};

use crate::slow::HEADER_TIMEOUT;

const HEADER_BYTES_MAX: u32 = 64 * 1024;

pub async fn start(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, upstream));
        }
    });
    address
}

async fn serve(stream: TcpStream, upstream: SocketAddr) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(guard::FIELDS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADER_TIMEOUT)
        .keep_alive_timeout(HEADER_TIMEOUT)
        .max_header_list_size(HEADER_BYTES_MAX);
    let service = service_fn(move |request| answer(request, upstream));
    // Connections end as they like.
    let _ended = server.serve_connection(TokioIo::new(Prompt::new(stream)), service).await;
}

async fn answer(
    request: Request<Incoming>,
    upstream: SocketAddr,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = request.version();
    let mut answer = respond(request, upstream).await.unwrap_or_else(|status| {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = status;
        answer
    });
    // What follows a request that was refused is not to be read.
    if !answer.status().is_success() && version != Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

async fn respond(
    request: Request<Incoming>,
    upstream: SocketAddr,
) -> Result<Response<Full<Bytes>>, StatusCode> {
    let (mut parts, body) = request.into_parts();
    guard::check(&parts).map_err(|refused| refused.status)?;
    if parts.uri.path() == "*" {
        return Ok(Response::new(Full::default()));
    }
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert("host", host);
    }
    hop::strip_request(&mut parts.headers, parts.version);
    hop::frame_for_http1(&mut parts.headers, &body);
    parts.version = Version::HTTP_11;
    parts.uri = beyond_the_service(&parts.uri).ok_or(StatusCode::NOT_FOUND)?;
    let answered = ask(upstream, Request::from_parts(parts, body)).await;
    let (mut parts, body) = answered.map_err(|_| StatusCode::BAD_GATEWAY)?;
    hop::strip_response(&mut parts.headers, parts.status, hop::Passage::Http);
    Ok(Response::from_parts(parts, Full::new(body)))
}

/// Without the first segment, as it is encoded.
fn beyond_the_service(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query()?.as_str().strip_prefix("/orders")?;
    if path.starts_with('/') { path.parse().ok() } else { format!("/{path}").parse().ok() }
}

async fn ask(
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<(http::response::Parts, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(upstream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok((parts, body.collect().await?.to_bytes()))
}

/// A connection whose first bytes are there in time: those by which hyper tells the versions of HTTP
/// apart, for which it would wait for ever.
struct Prompt {
    stream: TcpStream,
    /// Until the version is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How much of the beginning of HTTP/2 was there.
    matched: usize,
}

impl Prompt {
    fn new(stream: TcpStream) -> Self {
        Self { stream, deadline: Some(Box::pin(sleep(HEADER_TIMEOUT))), matched: 0 }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[self.matched..];
        if preface.starts_with(bytes) && bytes.len() < preface.len() {
            self.matched += bytes.len();
        } else {
            self.deadline = None;
        }
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else { return read };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.look_at(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
