//! The gateway as a whole: what it is made of, how it begins and ends. It must never let a request that
//! it has taken in go unanswered, but for those that outlast the time it is given.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Response, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpSocket},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use waypost_client::{Client, Registered, Registration};

use crate::{
    access_log::{self, AccessLog, Entry, Outcome, Sent, Told},
    admin, clock, exchange,
    forwarded::TrustedProxies,
    measures::Measures,
    problem::Problem,
    rejection,
    server::{self, Patience, Threads},
    settings::Settings,
    settings_file::{Hangup, OpenError, SettingsFile},
    tasks::Tasks,
    upstreams::Upstreams,
    via::{NoPseudonym, Pseudonym},
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

/// What serves requests.
pub(crate) struct Gateway {
    settings: Arc<SettingsFile>,
    pub(crate) upstreams: Upstreams,
    pub(crate) trusted: TrustedProxies,
    pub(crate) pseudonym: Pseudonym,
    pub(crate) body_silence_max: Duration,
    pub(crate) tasks: Tasks,
    /// Ends what would not end by itself.
    pub(crate) closing: CancellationToken,
    pub(crate) figures: Option<PrometheusHandle>,
    access_log: Option<Arc<AccessLog>>,
    measures: Measures,
    /// No more connections.
    leaving: CancellationToken,
    /// Set once the registry had reported all services of the routes: from then on a gateway is ready until
    /// it drains. What a reload adds is waited for by the requests to it alone.
    was_ready: AtomicBool,
    /// No more requests on those that there are.
    idle: CancellationToken,
}

impl Gateway {
    /// Returns why it should get no traffic yet, or no more.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.leaving.is_cancelled() {
            return Some("the gateway is draining".into());
        }
        if self.was_ready.load(Relaxed) {
            return None;
        }
        let settings = self.settings();
        let loading = settings.services().find(|service| !self.upstreams.get(service).is_loaded());
        if loading.is_none() {
            self.was_ready.store(true, Relaxed);
        }
        loading.map(|service| format!("the registry has not reported service {service} yet"))
    }

    /// Watches the services of the routes in `settings`, from before the first request to them.
    fn watch(&self, settings: &Settings) {
        self.upstreams.keep(settings.services());
    }

    /// What is in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.current()
    }

    /// A request was taken in: it will be told of.
    pub(crate) fn begin(self: &Arc<Self>, entry: Entry) -> Untold {
        self.measures.began();
        Untold { gateway: Arc::clone(self), entry: Some(entry) }
    }

    /// Logs and counts a request that hyper refused, and whose answer is `sent`.
    pub(crate) fn tell_refused(&self, entry: &Entry, problem: &Problem, sent: Sent) {
        self.measures.began();
        let outcome = Outcome::default().with_problem(problem);
        self.tell(entry, &outcome, problem.status(), sent);
    }

    fn tell(&self, entry: &Entry, outcome: &Outcome, status: StatusCode, sent: Sent) {
        self.measures.ended(outcome, status, entry.took());
        if let Some(log) = &self.access_log {
            access_log::write(log, entry, outcome, status, sent);
        }
    }
}

/// A request of which nothing was told yet. Who drops it tells that the caller went away before there
/// was an answer.
pub(crate) struct Untold {
    gateway: Arc<Gateway>,
    /// Gone once there is an answer.
    entry: Option<Entry>,
}

impl Untold {
    /// What is told of a request whose caller did not wait, by a custom of logs; nobody is answered so.
    const GONE: u16 = 499;

    /// Sees to it that a request is told of once its answer was sent.
    pub(crate) fn tell(mut self, outcome: Outcome, answer: Response<Body>) -> Response<Body> {
        let Some(entry) = self.entry.take() else { return answer };
        let (gateway, status) = (Arc::clone(&self.gateway), answer.status());
        let tell = move |sent| gateway.tell(&entry, &outcome, status, sent);
        answer.map(|body| Body::new(Told::new(body, tell)))
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let (Some(entry), Ok(gone)) = (self.entry.take(), StatusCode::from_u16(Self::GONE)) {
            self.gateway.tell(&entry, &Outcome::default(), gone, Sent::default());
        }
    }
}

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
        move |peer, request| Box::pin(exchange::answer(Arc::clone(&gateway), peer, request))
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
