//! Connections of HTTP/1.1, each for one call at a time, kept for a while for the next one. What is left
//! to the pool of hyper-util: it must never be asked to send a call twice that may have been received.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri, Version, uri};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::TokioTimer,
};
use tonic::body::Body;

use crate::{
    clock,
    connection::{ConnectError, Dialer, SendError},
    connector::Io,
    tasks::Executor,
};

/// How long a connection that nobody uses is kept: less than servers do, most of which keep one for
/// 5 s and more, so that no call is sent while its instance closes.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// The connections to the instances of a service.
#[derive(Clone)]
pub(super) struct Pool {
    client: Arc<Client<Connect, Body>>,
}

impl Pool {
    pub(super) fn new(dialer: &Dialer) -> Self {
        let client = Client::builder(Executor)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .build(Connect { dialer: dialer.clone() });
        Self { client: Arc::new(client) }
    }

    /// Sends `request` to `address`. Cancel safe: dropping closes the connection.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        address: &str,
    ) -> Result<Response<Incoming>, SendError> {
        *request.uri_mut() = target(address, request.uri()).map_err(SendError::Unreached)?;
        *request.version_mut() = Version::HTTP_11;
        self.client.request(request).await.map_err(|error| {
            if error.is_connect() {
                SendError::Unreached(unreached(address, error))
            } else {
                SendError::Lost(Box::new(error))
            }
        })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pool")
    }
}

fn target(address: &str, path: &Uri) -> Result<Uri, ConnectError> {
    let bad = |source| ConnectError::Address { address: address.into(), source: Arc::new(source) };
    let mut parts: uri::Parts =
        format!("http://{address}").parse::<Uri>().map_err(bad)?.into_parts();
    let path = path.path_and_query().cloned();
    parts.path_and_query = path.or_else(|| Some(uri::PathAndQuery::from_static("/")));
    Ok(Uri::from_parts(parts).expect("scheme and authority of a URI, with a path"))
}

/// What kept a connection from being made: the dialer's own word where there is one.
fn unreached(address: &str, error: hyper_util::client::legacy::Error) -> ConnectError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if let Some(known) = found.downcast_ref::<ConnectError>() {
            return known.clone();
        }
        cause = found.source();
    }
    let address = address.parse().unwrap_or_default();
    ConnectError::Refused { address, source: Arc::new(error) }
}

#[derive(Clone)]
struct Connect {
    dialer: Dialer,
}

impl tower::Service<Uri> for Connect {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let Dialer { connector, connect_timeout: limit, .. } = self.dialer.clone();
        Box::pin(async move {
            match clock::within(limit, connector.open(address.clone())).await {
                Some(Ok(stream)) => Ok(Stream(stream)),
                Some(Err(source)) => Err(ConnectError::Refused { address, source }),
                None => Err(ConnectError::Timeout { address, limit }),
            }
        })
    }
}

/// A connection's byte stream.
struct Stream(Box<dyn Io>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }
}
