//! Connects the real server and the real client to the simulated network. A socket belongs to a
//! process and breaks when the process is killed.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use turmoil_net::shim::tokio::net::{TcpListener, TcpStream};
use waypost_client::{Builder, Client, Credentials};

use crate::{access::token, network::registry_address};

/// A process, as far as the network goes: when it is killed, its kernel closes its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Process {
    killed: CancellationToken,
    /// The name of the token that it has, where there is a policy.
    pub(crate) token: Option<String>,
}

impl Process {
    /// A process with the token of this name.
    pub(crate) fn with_token(token: Option<String>) -> Self {
        Self { token, ..Self::default() }
    }

    /// The settings of a client crate in this process: its connector and credentials.
    pub(crate) fn client(&self) -> Builder {
        let builder = Client::builder().connector(self.connector());
        match &self.token {
            Some(name) => builder.credentials(Credentials::default().token(token(name))),
            None => builder,
        }
    }

    /// Cuts the process off: tasks that it leaves in its runtime neither send nor receive.
    pub(crate) fn kill(&self) {
        self.killed.cancel();
    }

    /// Connects to the registry, whatever the name.
    pub(crate) async fn connect(self) -> io::Result<Socket> {
        if self.killed.is_cancelled() {
            return std::future::pending().await;
        }
        let stream = TcpStream::connect(registry_address()).await?;
        Ok(Socket { stream: Some(stream), killed: Box::pin(self.killed.cancelled_owned()) })
    }

    /// The connector for clients.
    fn connector(
        &self,
    ) -> impl tower::Service<Uri, Response = TokioIo<Socket>, Error = io::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        let process = self.clone();
        tower::service_fn(move |_: Uri| {
            let process = process.clone();
            async move { process.connect().await.map(TokioIo::new) }
        })
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Option<TcpStream>,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Socket {
    /// The stream, until the process is killed.
    fn stream(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        if self.killed.as_mut().poll(context).is_ready() {
            self.stream = None;
        }
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream(context)?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_shutdown(context)
    }
}

/// A connection that the registry took.
#[derive(Debug)]
pub(crate) struct Taken(TcpStream);

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The connections that arrive at a port of the host that this runs on.
pub(crate) async fn incoming(
    port: u16,
) -> impl Stream<Item = io::Result<(Taken, Option<SocketAddr>)>> + Send {
    let listener = TcpListener::bind(("0.0.0.0", port)).await.expect("the port is free");
    stream::unfold(listener, async |listener| {
        let taken = listener.accept().await.map(|(stream, _)| (Taken(stream), None));
        Some((taken, listener))
    })
}
