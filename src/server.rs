//! The assembly: the only place that sees everything. It binds before it spawns, and knows the order
//! in which things end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::Stream;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    select,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api::grpc::{self, Gate, Health},
    clock::Clock,
    config::{Config, StoreKind},
    connections::Connections,
    engine::Engine,
    listener,
    model::Limits,
    store::{DiskStore, Loaded, MemoryStore, Store, StoreError},
    tasks::{self, Tasks},
};

/// From the request to stop until the end, whatever peers do.
const SHUTDOWN_MAX: Duration = Duration::from_secs(8);

/// A server that is bound to its address and not serving yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
}

/// A server without a network: what [`Server`] runs over TCP, and simulations over theirs.
#[derive(Debug)]
pub struct Core {
    gate: Arc<Gate>,
    /// Cancelled when the gate has closed.
    leaving: CancellationToken,
    /// Keeps its mailbox open until it was asked to stop.
    engine: OnceLock<Engine>,
    health: Health,
    limits: Arc<Limits>,
    clock: Clock,
    tasks: Tasks,
}

/// The address can't be listened on.
#[derive(Debug, Error)]
#[error("can't listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Why a server ended that was not asked to.
#[derive(Debug, Error)]
pub enum RunError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There can't be a thread for the engine.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// The file for the bound address can't be written.
    #[error("can't write the bound address to {}: {source}", path.display())]
    PortFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part of it ended; the log says which.
    #[error("a task of the server ended unexpectedly")]
    TaskEnded,
}

impl Server {
    /// Listens on the configured address. Must be called in a tokio runtime.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let address = config.listen;
        let (listener, address) =
            listener::listen(address).map_err(|source| BindError { address, source })?;
        Ok(Self { listener, address, config })
    }

    /// The address that it listens on, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready. Until the store is loaded, calls are answered with
    /// `UNAVAILABLE`. At last it ends in order, within 8 s: health says that it no longer serves, no
    /// new connections are taken, streams end with `UNAVAILABLE`, and calls in flight finish.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { listener, address, config } = self;
        let core = Core::new(config.limits.clone(), Clock::start()).await;
        let starting = async {
            match config.store {
                StoreKind::Memory => {
                    let (store, loaded) = MemoryStore::open();
                    core.start(store, loaded).await?;
                }
                StoreKind::Disk => {
                    let (directory, limits) = (config.data_dir, config.limits);
                    let open = move || DiskStore::open(&directory, &limits);
                    let (store, loaded) = tasks::block(open).await?;
                    core.start(store, loaded).await?;
                }
            }
            if let Some(path) = config.port_file {
                let written = write_port_file(&path, address);
                written.map_err(|source| RunError::PortFile { path, source })?;
            }
            info!(%address, "serving");
            Ok(())
        };
        let mut started = Ok(());
        let end = async {
            tokio::pin!(shutdown);
            select! {
                biased;
                () = &mut shutdown => return,
                outcome = starting => started = outcome,
            }
            if started.is_ok() {
                shutdown.await;
            }
        };
        let ended = core.run(listener::tcp(listener), end).await;
        started.and(ended)
    }
}

impl Core {
    /// A core that starts. Must be called in a tokio runtime.
    pub async fn new(limits: Limits, clock: Clock) -> Self {
        let (first_routes, health) = grpc::first_routes().await;
        let leaving = CancellationToken::new();
        Self {
            gate: Arc::new(Gate::new(first_routes, clock)),
            leaving,
            engine: OnceLock::new(),
            health,
            limits: Arc::new(limits),
            clock,
            tasks: Tasks::default(),
        }
    }

    /// Starts the engine upon what a store kept; from here on calls are answered. To be called once.
    pub async fn start<S: Store>(&self, store: S, loaded: Loaded) -> Result<(), RunError> {
        let engine = Engine::start(store, loaded, &self.limits, self.clock, &self.tasks);
        let engine = engine.map_err(RunError::Thread)?;
        let failure = engine.store_failure();
        self.gate.open(&engine, &self.limits);
        let _once = self.engine.set(engine);
        self.health.serving().await;
        let follow = self.health.clone().follow(failure);
        let stop = self.tasks.stop().clone().cancelled_owned();
        self.tasks.spawn("health", async move {
            select! {
                () = follow => {}
                () = stop => {}
            }
        });
        Ok(())
    }

    /// As [`Server::run`], over the given connections.
    pub async fn run<I>(
        &self,
        incoming: impl Stream<Item = io::Result<I>> + Send,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (leaving, cut) = (self.leaving.clone(), CancellationToken::new());
        let incoming = listener::bounded(incoming, self.limits.connections_max, leaving.clone());
        let connections = Connections {
            gate: Arc::clone(&self.gate),
            streams_max: self.limits.streams_max,
            leaving,
            cut: cut.clone(),
        };
        let mut serving = pin!(connections.serve(incoming));
        let ended = select! {
            biased;
            () = shutdown => Ok(()),
            () = self.tasks.stop().cancelled() => Err(RunError::TaskEnded),
            () = &mut serving => Ok(()),
        };
        info!("shutting down");
        self.health.not_serving().await;
        self.gate.close();
        self.leaving.cancel();
        if ended.is_ok() && timeout(SHUTDOWN_MAX, serving).await.is_err() {
            warn!("connections were still open and are cut");
        }
        cut.cancel();
        // The engine ends last: whoever was let in got an answer.
        self.tasks.join(Duration::from_secs(1)).await;
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
