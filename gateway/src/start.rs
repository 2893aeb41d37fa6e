//! Starts and closes a gateway.
//! Invariant: a request that was accepted gets its response, unless it outlasts the drain time.

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
        via::{InvalidPseudonym, Pseudonym},
    },
    observe::{AccessLog, RequestMetrics},
    proxy::{self, rejection},
    server::{self, ServingThreads, Shutdown, Timeouts},
    settings::Settings,
    upstream::services::Upstreams,
};

/// The options of a gateway.
pub struct GatewayOptions {
    /// The listen address for requests.
    pub listen: SocketAddr,
    /// The listen address for operators: metrics, liveness, readiness.
    pub admin_listen: SocketAddr,
    /// The configuration file; none: the first segment of each path names the service.
    pub config: Option<PathBuf>,
    /// The client of the registry.
    pub client: Client,
    /// The proxies whose claims about the origin of a request count.
    pub trusted: TrustedProxies,
    /// The name of this gateway in `Via`, unique among gateways.
    pub name: String,
    /// The registration of the gateway as a service, if any.
    pub advertised: Option<Advertised>,
    /// The recorder of metrics, if any.
    pub prometheus: Option<PrometheusHandle>,
    /// The writer of the access log, which gets several lines at once; it must not block.
    pub access_log: Option<Box<dyn io::Write + Send>>,
    /// The timeout for the head of a request.
    pub head_timeout: Duration,
    /// The longest pause in the body of a request, except gRPC calls, and the longest time in which
    /// a caller of HTTP/1.1 takes nothing of a response.
    pub body_silence_max: Duration,
    /// The time for requests in flight at shutdown.
    pub drain: Duration,
}

/// The registration of a gateway.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// The service that the gateway is an instance of.
    pub service: String,
    /// The host at which others reach the gateway, at the port that it listens on.
    pub host: String,
}

/// The reason why a gateway does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The file cannot be read, or is invalid.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The system has no thread for each core.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// The name is not valid in `Via`.
    #[error("the gateway's name: {0}")]
    Name(#[from] InvalidPseudonym),
}

/// The interval at which recorded times are summed up, so that they take no memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The time for the operators' port to close.
const OPERATORS_END_MAX: Duration = Duration::from_secs(1);

/// A running gateway, until it is [closed](Self::close). Dropping it closes it at once.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    gateway: Arc<Gateway>,
    /// Tasks that end when the gateway drains.
    tasks: Tasks,
    /// Tasks that end last: operators observe the drain.
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

impl fmt::Debug for GatewayOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GatewayOptions")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Starts a gateway.
///
/// # Errors
/// An address can't be listened on, or the configuration is invalid: nothing was started.
pub async fn start(options: GatewayOptions) -> Result<Running, StartError> {
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
    tracing::info!(%address, %admin_address, "serving");
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

/// Starts the tasks that flush the access log and keep the metrics small.
fn spawn_upkeep(gateway: &Gateway, tasks: &Tasks) {
    if let Some(log) = gateway.access_log.clone() {
        let stop = tasks.stop().clone();
        tasks.spawn("access log", async move {
            stop.run_until_cancelled(log.run()).await;
        });
    }
    if let Some(prometheus) = gateway.prometheus.clone() {
        tasks.spawn("metrics", run_upkeep(prometheus, tasks.stop().clone()));
    }
}

/// Drops idle series of metrics.
async fn run_upkeep(prometheus: PrometheusHandle, stop: CancellationToken) {
    let upkeep = async {
        loop {
            time::sleep(UPKEEP_INTERVAL).await;
            prometheus.run_upkeep();
        }
    };
    stop.run_until_cancelled(upkeep).await;
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    listener::bind(address).map_err(|source| StartError::Listen { address, source })
}

impl Running {
    /// Returns the address for requests.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address for operators.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Shuts down: announces it to the registry, accepts no more connections, and waits for
    /// requests in flight, for the drain time at most. Until half of the time has passed, idle
    /// connections of HTTP/1.1 may send one more request each. Cancelling it closes the gateway at
    /// once.
    pub async fn close(mut self) {
        let end = time::sleep(self.drain);
        tokio::pin!(end);
        if let Some(registered) = self.registered.take() {
            // Callers learn of it first, and have time to go elsewhere.
            let _drained = registered.drain(self.drain / 2).await;
        }
        self.gateway.shutdown.drain.cancel();
        let left = end.deadline().into_std().saturating_duration_since(clock::now());
        let last_request = time::sleep(left / 2);
        // The accept loop ends first, so that the connections to wait for are complete.
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

    /// Waits until a task has ended that the gateway can't do without; the log names it. The
    /// gateway should be [closed](Self::close) then. Cancel safe.
    pub async fn wait_failed(&self) {
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
        let options = GatewayOptions {
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
            time::timeout(Duration::from_secs(5), running.wait_failed()).await.expect("it fails");
            time::timeout(Duration::from_secs(5), running.close()).await.expect("it closes");
        }
    }
}
