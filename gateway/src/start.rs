//! Starts a gateway, and ends it.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, time};
use tokio_util::sync::CancellationToken;
use waypost_client::{Client, Registered, Registration};
use waypost_config::reload::{Hangup, LoadError};
use waypost_serving::{
    listener,
    tasks::{TaskSet, Tasks},
};

use crate::{
    admin, clock,
    gateway::Gateway,
    headers::{
        forwarded::TrustedProxies,
        via::{NoPseudonym, Pseudonym},
    },
    observe::{AccessLog, RequestMetrics},
    proxy::{self, rejection},
    server::{self, ServingThreads, Shutdown, Timeouts},
    settings::Settings,
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
    pub prometheus: Option<PrometheusHandle>,
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
    /// The file cannot be read, or is invalid.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// There can't be as many threads as there are cores.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// It can't be called so.
    #[error("the gateway's name: {0}")]
    Name(#[from] NoPseudonym),
}

/// How often measured times are summed up, so that they take no room.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The time that the operators' port has to end.
const OPERATORS_END_MAX: Duration = Duration::from_secs(1);

/// A gateway that works, until it is [closed](Self::close). Dropping it ends it at once.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    gateway: Arc<Gateway>,
    /// End as soon as the gateway drains.
    tasks: Tasks,
    /// End last: operators see a gateway that drains.
    operators: Tasks,
    registered: Option<Registered>,
    drain: Duration,
    _threads: ServingThreads,
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
/// It can't listen, or its configuration is invalid: nothing was started then.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let hangup = Hangup::new();
    let config_path = options.config.clone().unwrap_or_default();
    let settings = Arc::new(Settings::open(options.config)?);
    let pseudonym = Pseudonym::new(&options.name)?;
    let (listener, address) = bind(options.listen)?;
    let (admin_listener, admin_address) = bind(options.admin_listen)?;
    let (tasks, operators) = (Tasks::default(), Tasks::default());
    let threads = ServingThreads::start(&tasks).map_err(StartError::Thread)?;
    let gateway = Arc::new(Gateway {
        settings: Arc::clone(&settings),
        upstreams: Upstreams::new(options.client.clone()),
        trusted: options.trusted,
        pseudonym,
        body_silence_max: options.body_silence_max,
        connections: TaskSet::default(),
        prometheus: options.prometheus,
        access_log: options.access_log.map(AccessLog::new).map(Arc::new),
        metrics: RequestMetrics::new(),
        shutdown: Shutdown { drain: tasks.stop().clone(), ..Shutdown::default() },
        was_ready: AtomicBool::new(false),
    });
    gateway.watch(&gateway.settings());
    let watching = Arc::clone(&gateway);
    let stop = tasks.stop().clone();
    tasks.spawn("configuration", async move {
        let on_reload = |settings: &Settings| {
            let routes = settings.config.routes.routes().len();
            tracing::info!(path = %config_path.display(), routes, "configuration reloaded");
            watching.watch(settings);
        };
        settings.follow(hangup, stop, on_reload).await;
    });
    let timeouts = Timeouts { head: options.head_timeout, send: options.body_silence_max };
    tasks.spawn("requests", serve(&gateway, listener, &threads, timeouts));
    let registered = options.advertised.map(|Advertised { service, host }| {
        options.client.register_in_background(Registration::new(service, host, address.port()))
    });
    let stop = operators.stop().clone();
    operators.spawn("admin", admin::run(admin_listener, Arc::clone(&gateway), stop));
    spawn_upkeep(&gateway, &tasks);
    tracing::info!(%address, %admin_address, "the gateway serves");
    let drain = options.drain;
    Ok(Running {
        address,
        admin_address,
        gateway,
        tasks,
        operators,
        registered,
        drain,
        _threads: threads,
    })
}

/// Serves requests until the gateway drains.
fn serve(
    gateway: &Arc<Gateway>,
    listener: TcpListener,
    threads: &ServingThreads,
    timeouts: Timeouts,
) -> impl Future<Output = ()> + Send + use<> {
    let responding = Arc::clone(gateway);
    // Boxed: an idle connection stays small.
    let respond =
        move |peer, request| Box::pin(proxy::serve(Arc::clone(&responding), peer, request));
    let shutdown = gateway.shutdown.clone();
    let reject = rejection::by(gateway);
    let connections = gateway.connections.clone();
    server::run(listener, threads.round_robin(), timeouts, connections, shutdown, respond, reject)
}

/// Starts what the access log and metrics need done now and then.
fn spawn_upkeep(gateway: &Gateway, tasks: &Tasks) {
    if let Some(log) = gateway.access_log.clone() {
        let stop = tasks.stop().clone();
        tasks.spawn("access log", async move {
            stop.run_until_cancelled(log.run()).await;
        });
    }
    if let Some(prometheus) = gateway.prometheus.clone() {
        tasks.spawn("metrics", tend(prometheus, tasks.stop().clone()));
    }
}

/// Forgets what nobody adds to any more, in time.
async fn tend(prometheus: PrometheusHandle, leaving: CancellationToken) {
    let tending = async {
        loop {
            time::sleep(UPKEEP_INTERVAL).await;
            prometheus.run_upkeep();
        }
    };
    leaving.run_until_cancelled(tending).await;
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    listener::bind(address).map_err(|source| StartError::Listen { address, source })
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
        self.gateway.shutdown.drain.cancel();
        let left = end.deadline().into_std().saturating_duration_since(clock::now());
        let last_request = time::sleep(left / 2);
        // First, so that all connections are known that are waited for below.
        self.tasks.join(left / 2).await;
        tokio::select! {
            () = self.gateway.connections.ended() => {}
            () = last_request => {}
        }
        self.gateway.shutdown.close_idle.cancel();
        tokio::select! {
            () = self.gateway.connections.ended() => {}
            () = end => {}
        }
        self.gateway.shutdown.abort.cancel();
        self.gateway.connections.ended().await;
        self.operators.join(OPERATORS_END_MAX).await;
        if let Some(log) = &self.gateway.access_log {
            log.flush();
        }
    }

    /// Waits until a task has ended that the gateway can't do without; the log names it. The gateway
    /// should be [closed](Self::close) then. Cancel safe.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.tasks.stop().cancelled() => {}
            () = self.operators.stop().cancelled() => {}
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gateway.shutdown.drain.cancel();
        self.gateway.shutdown.close_idle.cancel();
        self.gateway.shutdown.abort.cancel();
        self.operators.stop().cancel();
    }
}

#[cfg(test)]
mod tests {
    use waypost_client::fake::Registry;

    use super::*;

    async fn running() -> Running {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = Options {
            listen: any,
            admin_listen: any,
            config: None,
            client: Registry::new().client(),
            trusted: TrustedProxies::default(),
            name: "gateway".into(),
            advertised: None,
            prometheus: None,
            access_log: None,
            head_timeout: Duration::from_secs(10),
            body_silence_max: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        };
        start(options).await.expect("it starts")
    }

    #[tokio::test]
    async fn a_task_that_ends_early_makes_the_gateway_fail_and_drain() {
        for tasks in [
            |running: &Running| running.tasks.clone(),
            |running: &Running| running.operators.clone(),
        ] {
            let running = running().await;
            tasks(&running).spawn("planted", async { panic!("planted") });
            time::timeout(Duration::from_secs(5), running.failed()).await.expect("it fails");
            time::timeout(Duration::from_secs(5), running.close()).await.expect("it closes");
        }
    }
}
