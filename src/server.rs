//! The assembly: the only place that sees everything. It binds before it spawns, and knows the order
//! in which things end.

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::Stream;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    select,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::server::Connected};
use tracing::{info, warn};

use crate::{
    api::grpc::{self, GateLayer, Health},
    clock::Clock,
    config::Config,
    engine::{Engine, StartError},
    listener,
    model::Limits,
    store::MemoryStore,
    tasks::Tasks,
};

/// From the request to stop until the end, whatever peers do.
const SHUTDOWN_MAX: Duration = Duration::from_secs(8);
/// How often a silent connection is asked whether it lives, and how long the answer may take.
const HTTP2_KEEPALIVE: Duration = Duration::from_secs(10);

/// A server that is bound to its address and not serving yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    core: Core,
}

/// A server without a network: what [`Server`] runs over TCP, and simulations over theirs.
#[derive(Debug)]
pub struct Core {
    routes: Routes,
    health: Health,
    limits: Arc<Limits>,
    tasks: Tasks,
    /// Keeps the engine's mailbox open until the engine was asked to stop.
    engine: Engine,
}

/// Why a server could not be set up.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file for the bound address can't be written.
    #[error("can't write the bound address to {}: {source}", path.display())]
    PortFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine can't start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why a server ended that was not asked to.
#[derive(Debug, Error)]
pub enum RunError {
    /// Serving failed.
    #[error("serving failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// A part of it ended; the log says which.
    #[error("a task of the server ended unexpectedly")]
    TaskEnded,
}

impl Server {
    /// Listens on the configured address and loads the store.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let address = config.listen;
        let (listener, address) =
            listener::listen(address).map_err(|source| BindError::Listen { address, source })?;
        let core = Core::start(config.limits, Clock::start()).await?;
        if let Some(path) = config.port_file {
            write_port_file(&path, address)
                .map_err(|source| BindError::PortFile { path, source })?;
        }
        Ok(Self { listener, address, core })
    }

    /// The address that it listens on, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready; then ends in order, within 8 s: health says that it no
    /// longer serves, no new connections are taken, streams end with `UNAVAILABLE`, and calls in
    /// flight finish.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        info!(address = %self.address, "serving");
        self.core.run(listener::tcp(self.listener), shutdown).await
    }
}

impl Core {
    /// Loads the store and starts the engine. Must be called in a tokio runtime.
    pub async fn start(limits: Limits, clock: Clock) -> Result<Self, StartError> {
        let limits = Arc::new(limits);
        let tasks = Tasks::default();
        let engine = Engine::start(MemoryStore, &limits, clock, &tasks).await?;
        let (routes, health) = grpc::routes(&engine, &limits, clock);
        health.serving().await;
        Ok(Self { routes, health, limits, tasks, engine })
    }

    /// As [`Server::run`], over the given connections.
    pub async fn run<I>(
        self,
        incoming: impl Stream<Item = io::Result<I>> + Send,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError>
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (leaving, cut) = (CancellationToken::new(), CancellationToken::new());
        let connections_max = self.limits.connections_max;
        let incoming = listener::bounded(incoming, connections_max, leaving.clone(), cut.clone());
        let serving = tonic::transport::Server::builder()
            .accept_http1(true)
            .max_concurrent_streams(u32::try_from(self.limits.streams_max).ok())
            .http2_keepalive_interval(Some(HTTP2_KEEPALIVE))
            .http2_keepalive_timeout(Some(HTTP2_KEEPALIVE))
            .layer(GateLayer::new(leaving.clone()))
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(incoming, leaving.clone().cancelled_owned());
        tokio::pin!(serving);
        let ended = select! {
            ended = &mut serving => ended.map_err(RunError::Serve),
            () = self.tasks.stop().cancelled() => Err(RunError::TaskEnded),
            () = shutdown => Ok(()),
        };
        info!("shutting down");
        self.health.not_serving().await;
        leaving.cancel();
        if ended.is_ok() && timeout(SHUTDOWN_MAX, serving).await.is_err() {
            warn!("connections were still open and are cut");
        }
        cut.cancel();
        // The engine ends last: whoever was let in got an answer.
        self.tasks.join(Duration::from_secs(1)).await;
        drop(self.engine);
        info!("stopped");
        ended
    }
}

/// Whoever waits for the file must never see half of an address.
fn write_port_file(path: &PathBuf, address: SocketAddr) -> io::Result<()> {
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    std::fs::write(&partial, format!("{address}\n"))?;
    std::fs::rename(&partial, path)
}
