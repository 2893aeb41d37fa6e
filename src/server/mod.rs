//! The assembly of the server: it binds, starts the engine, serves, and shuts down in order.

mod access;
mod audit;
mod calls;
mod connections;
mod door;
mod follow;
mod trust_files;

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
use waypost_auth::policy::Policy;
use waypost_serving::{
    listener, port_file,
    tasks::{self, Tasks},
};

use self::{
    access::JudgedFiles,
    connections::Connections,
    door::{Door, KnownBy},
    follow::Follower,
};

use crate::{
    api::{
        Router,
        grpc::{self, HealthReport},
    },
    auth::{
        Gate, TrustCell,
        audit::{AuditError, AuditLog},
    },
    clock::Clock,
    config::{Config, InvalidConfig, StoreKind},
    engine::Engine,
    model::Limits,
    registry::LeaseSeed,
    store::{DiskStore, MemoryStore, Store, StoreError, StoredState},
};

/// Strangers at a time, in a server whose limit of connections is large.
const STRANGERS_MAX: usize = 16 * 1024;
/// The time from the request to stop until open connections are closed.
const SHUTDOWN_MAX: Duration = Duration::from_secs(8);

/// A server that is bound to its address and does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    clock: Clock,
    gate: Gate,
    /// `None` without a policy.
    files: Option<JudgedFiles>,
}

/// A server without a network. [`Server`] runs it over TCP, a simulation over its own.
#[derive(Debug)]
pub struct Core {
    router: Arc<Router>,
    /// Cancelled when the router has closed.
    stop: CancellationToken,
    /// Keeps the engine's mailbox open until the end.
    engine: OnceLock<Engine>,
    health: HealthReport,
    gate: Gate,
    limits: Arc<Limits>,
    clock: Clock,
    seed: LeaseSeed,
    tasks: Tasks,
}

/// The reason why a server did not start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The policy or the identity folder is invalid, or the configuration would let strangers in.
    #[error(transparent)]
    Configuration(#[from] InvalidConfig),
    /// Listening on the address failed.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

/// The reason why a server ended early.
#[derive(Debug, Error)]
pub enum RunError {
    /// The store failed to open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Starting the audit log failed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The system's random generator failed.
    #[error("can't get random bytes from the system: {0}")]
    Random(io::Error),
    /// Creating the engine's thread failed.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// Writing the port file failed.
    #[error("can't write the bound address to {}: {source}", path.display())]
    PortFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A task of the server ended or panicked.
    #[error("a task of the server ended unexpectedly; the log names it")]
    TaskEnded,
}

impl Server {
    /// Reads the policy and the identity folder, and listens on the configured address. Must be
    /// called in a tokio runtime.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let clock = Clock::start();
        let (gate, files) = access::gate(&config, clock)?;
        let address = config.listen;
        let (listener, address) =
            listener::bind(address).map_err(|source| BindError::Listen { address, source })?;
        Ok(Self { listener, address, config, clock, gate, files })
    }

    /// Returns the address that it listens on; for port 0, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready. While the store loads, calls fail with `UNAVAILABLE`. Then
    /// shuts down within 8 s: health reports that nothing serves, no new connections are accepted,
    /// streams end with `UNAVAILABLE`, and calls in flight finish. Not cancel safe.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { listener, address, config, clock, gate, files } = self;
        let seed = lease_seed().map_err(RunError::Random)?;
        let tasks = Tasks::default();
        let gate = match audit::destination(&config) {
            Some(destination) => gate.with_audit(AuditLog::start(destination, &tasks, clock)?),
            None => gate,
        };
        audit::trust_in_force(&gate);
        let core = Core::with_tasks(config.limits.clone(), clock, seed, gate.clone(), tasks).await;
        let report = access::report(config.insecure, gate, clock, core.tasks.stop().clone());
        core.tasks.spawn("access report", report);
        let followed = files.zip(core.gate.trust().map(Arc::clone));
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
            if let Some((files, trust)) = followed {
                core.follow(files, trust);
            }
            if let Some(path) = config.port_file {
                let written = port_file::write(&path, &[address]);
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
        let ended = core.run(listener::incoming(listener), end).await;
        started.and(ended)
    }
}

impl Core {
    /// Makes a server that is starting, whose lease ids come from `seed`. Must be called in a tokio
    /// runtime.
    pub async fn new(limits: Limits, clock: Clock, seed: LeaseSeed, gate: Gate) -> Self {
        Self::with_tasks(limits, clock, seed, gate, Tasks::default()).await
    }

    async fn with_tasks(
        limits: Limits,
        clock: Clock,
        seed: LeaseSeed,
        gate: Gate,
        tasks: Tasks,
    ) -> Self {
        let (early, health) = grpc::early_services().await;
        let stop = CancellationToken::new();
        Self {
            router: Arc::new(Router::new(early, clock)),
            stop,
            engine: OnceLock::new(),
            health,
            gate,
            limits: Arc::new(limits),
            clock,
            seed,
            tasks,
        }
    }

    /// Starts the engine on the contents of a store, and serves calls from here on. Must be called
    /// only once.
    pub async fn start<S: Store>(&self, store: S, loaded: StoredState) -> Result<(), RunError> {
        let engine = Engine::start(store, loaded, self.seed, &self.limits, self.clock, &self.tasks);
        let engine = engine.map_err(RunError::Thread)?;
        let failure = engine.store_failure();
        self.router.open(&engine, &self.limits, &self.gate);
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

    /// Follows the files that callers are judged by, once the engine runs.
    fn follow(&self, files: JudgedFiles, trust: Arc<TrustCell>) {
        if let Some(engine) = self.engine.get() {
            let follower = Follower {
                files,
                trust,
                engine: engine.clone(),
                clock: self.clock,
                gate: self.gate.clone(),
            };
            self.tasks.spawn("policy", follower.run(self.tasks.stop().clone()));
        }
    }

    /// Puts another policy into force, as [`Server::run`] does when the files have changed, where
    /// there is one and no identity folder.
    pub fn replace_policy(&self, policy: Policy) {
        let Some(trust) = self.gate.trust() else { return };
        let replace = || trust.replace(policy, None, self.clock.wall());
        match self.engine.get() {
            Some(engine) => engine.replace_policy(replace),
            None => replace(),
        }
    }

    /// Like [`Server::run`], over the given connections, each with the address of its peer.
    pub async fn run<I>(
        &self,
        incoming: impl Stream<Item = io::Result<(I, Option<SocketAddr>)>> + Send,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stop, cut) = (self.stop.clone(), CancellationToken::new());
        let connections_max = self.limits.connections_max;
        let trust = self.gate.trust().map(Arc::clone);
        let known_by = if trust.is_some() { KnownBy::Gate } else { KnownBy::Opening };
        let strangers_max = STRANGERS_MAX.min(connections_max / 2);
        let connections = Connections {
            router: Arc::clone(&self.router),
            door: Door::new(trust, known_by, strangers_max),
            gate: self.gate.clone(),
            connections_max,
            streams_max: self.limits.streams_max,
            stop,
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
        self.router.close();
        self.stop.cancel();
        if ended.is_ok() && timeout(SHUTDOWN_MAX, serving).await.is_err() {
            warn!("shutdown deadline reached, closing open connections");
        }
        cut.cancel();
        // The engine ends last, so that every accepted call gets its response.
        self.tasks.join(Duration::from_secs(1)).await;
        info!("stopped");
        ended
    }
}

/// Draws the seed of this process's lease ids from the system's random generator.
fn lease_seed() -> io::Result<LeaseSeed> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(LeaseSeed::new(random))
}
