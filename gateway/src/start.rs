//! Starts a gateway, and ends it.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpSocket},
    time,
};
use tokio_util::sync::CancellationToken;
use waypost_client::{Client, Registered, Registration};

use crate::{
    admin, clock,
    gateway::Gateway,
    headers::{
        forwarded::TrustedProxies,
        via::{NoPseudonym, Pseudonym},
    },
    observe::{access_log::AccessLog, metrics::Measures},
    proxy::{self, rejection},
    server::{self, Patience, Threads},
    settings_file::{Hangup, OpenError, SettingsFile},
    tasks::Tasks,
    upstream::services::Upstreams,
};

/// What a gateway is started with.
pub struct Options {
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Where operators look: metrics, health, readiness.
    pub admin_listen: SocketAddr,
    /// The file of routes and the rest; none: the first segment of each path names the service.
    pub config: Option<PathBuf>,
    /// Knows the services.
    pub client: Client,
    /// Who speaks for clients behind them.
    pub trusted: TrustedProxies,
    /// What this gateway is called in `Via`, other than all others.
    pub name: String,
    /// How it is registered as a service itself, so that others find it.
    pub advertised: Option<Advertised>,
    /// What is measured, where something is.
    pub figures: Option<PrometheusHandle>,
    /// Where a line for each request goes, some of them with each write; it must not block.
    pub access_log: Option<Box<dyn io::Write + Send>>,
    /// How long the head of a request may take to come.
    pub head_timeout: Duration,
    /// How long nothing of a request's body may come, but for calls of gRPC, and how long a caller of
    /// HTTP/1.1 may take nothing of an answer.
    pub body_silence_max: Duration,
    /// How long requests that are under way may take when it ends.
    pub drain: Duration,
}

/// How a gateway is registered.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// The service that it is a replica of.
    pub service: String,
    /// Where others reach it, at the port that it listens on.
    pub host: String,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It can't listen there.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file can't be read, or has mistakes.
    #[error(transparent)]
    Config(#[from] OpenError),
    /// There can't be as many threads as there are cores.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// It can't be called so.
    #[error("the gateway's name: {0}")]
    Name(#[from] NoPseudonym),
}

/// How often measured times are summed up, so that they take no room.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that may wait to be taken in; the system may allow fewer. Who finds no room tries again a
/// second later.
const WAITING_MAX: u32 = 4096;

/// A gateway that works, until it is [closed](Self::close). Dropping it ends it at once.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    gateway: Arc<Gateway>,
    registered: Option<Registered>,
    drain: Duration,
    _threads: Threads,
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Options").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Starts a gateway.
///
/// # Errors
/// It can't listen, or its configuration has mistakes: nothing was started then.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let hangup = Hangup::new();
    let settings = Arc::new(match options.config {
        Some(path) => SettingsFile::open(path)?,
        None => SettingsFile::none(),
    });
    let pseudonym = Pseudonym::new(&options.name)?;
    let (listener, address) = listen(options.listen)?;
    let (admin_listener, admin_address) = listen(options.admin_listen)?;
    let threads = Threads::start().map_err(StartError::Thread)?;
    let leaving = CancellationToken::new();
    let gateway = Arc::new(Gateway {
        settings: Arc::clone(&settings),
        upstreams: Upstreams::new(options.client.clone()),
        trusted: options.trusted,
        pseudonym,
        body_silence_max: options.body_silence_max,
        tasks: Tasks::default(),
        closing: CancellationToken::new(),
        figures: options.figures,
        access_log: options.access_log.map(AccessLog::new).map(Arc::new),
        measures: Measures::new(),
        leaving: leaving.clone(),
        was_ready: AtomicBool::new(false),
        idle: CancellationToken::new(),
    });
    gateway.watch(&gateway.settings());
    let tasks = &gateway.tasks;
    let reloaded = Arc::clone(&gateway);
    tasks.spawn("configuration", async move {
        settings.follow(hangup, leaving, |settings| reloaded.watch(settings)).await;
    });
    let leaving = gateway.leaving.clone();
    let answer = {
        let gateway = Arc::clone(&gateway);
        // Boxed: a connection without a request stays small.
        move |peer, request| Box::pin(proxy::serve(Arc::clone(&gateway), peer, request))
    };
    let (idle, closing) = (gateway.idle.clone(), gateway.closing.clone());
    let ends = server::Ends { leaving: leaving.clone(), idle, closing };
    let patience =
        Patience { head_timeout: options.head_timeout, silence_max: options.body_silence_max };
    let reject = rejection::by(&gateway);
    let runtimes = threads.turns();
    let serving = server::run(listener, runtimes, patience, tasks.clone(), ends, answer, reject);
    tasks.spawn("requests", serving);
    let registered = options.advertised.map(|Advertised { service, host }| {
        options.client.register_in_background(Registration::new(service, host, address.port()))
    });
    Tasks::default().spawn("admin", admin::run(admin_listener, Arc::clone(&gateway)));
    if let Some(log) = gateway.access_log.clone() {
        let leaving = leaving.clone();
        tasks.spawn("access log", async move {
            leaving.run_until_cancelled(log.run()).await;
        });
    }
    if let Some(figures) = gateway.figures.clone() {
        tasks.spawn("figures", tend(figures, leaving));
    }
    tracing::info!(%address, %admin_address, "the gateway serves");
    let drain = options.drain;
    Ok(Running { address, admin_address, gateway, registered, drain, _threads: threads })
}

/// Forgets what nobody adds to any more, in time.
async fn tend(figures: PrometheusHandle, leaving: CancellationToken) {
    let tending = async {
        loop {
            time::sleep(UPKEEP_INTERVAL).await;
            figures.run_upkeep();
        }
    };
    leaving.run_until_cancelled(tending).await;
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(WAITING_MAX)?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = bound().map_err(failed)?;
    Ok((listener, address))
}

impl Running {
    /// Where requests come in.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators look.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Leaves: says so to the registry, takes no more connections, and waits for requests under way, as long
    /// as they may take. Half of the time that is left then, kept connections of HTTP/1.1 may have one
    /// more request each. Cancel safe in that it then ends at once.
    pub async fn close(mut self) {
        let end = time::sleep(self.drain);
        tokio::pin!(end);
        if let Some(registered) = self.registered.take() {
            // Callers are told first, and have time to hear it.
            let _drained = registered.drain(self.drain / 2).await;
        }
        self.gateway.leaving.cancel();
        let left = end.deadline().into_std().saturating_duration_since(clock::now());
        tokio::select! {
            () = self.gateway.tasks.ended() => {}
            () = time::sleep(left / 2) => {}
        }
        self.gateway.idle.cancel();
        tokio::select! {
            () = self.gateway.tasks.ended() => {}
            () = end => {}
        }
        self.gateway.closing.cancel();
        self.gateway.tasks.ended().await;
        if let Some(log) = &self.gateway.access_log {
            log.pass_on();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gateway.leaving.cancel();
        self.gateway.idle.cancel();
        self.gateway.closing.cancel();
    }
}
