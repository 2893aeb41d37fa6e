//! The command line: what a gateway is started with, and how it ends.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use ipnet::IpNet;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use waypost_client::{BuildError, Client};
use waypost_serving::{
    exit_code, port_file, signals,
    telemetry::{self, LogFormat},
};

use crate::{Advertised, Options, StartError, forwarded::TrustedProxies, start};

/// How long a series of figures is kept that nothing adds to: instances come and go.
const FIGURES_IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// What times are counted by, in seconds.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// How many pieces of the access log may wait to be written, each of 32 KiB at most.
const PIECES_MAX: usize = 1_024;

/// One URL over all services that a Waypost registry knows: `http://gateway/orders/7` reaches a live replica
/// of `orders`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where requests come in
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// Where operators look: /metrics, /health/live, /health/ready
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_ADMIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8081"
    )]
    admin_listen: SocketAddr,
    /// A registry; several, in the order in which they are asked
    #[arg(
        long,
        env = "WAYPOST_REGISTRY",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7510"
    )]
    registry: Vec<String>,
    /// The namespace of the services
    #[arg(long, env = "WAYPOST_NAMESPACE", value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Routes and the rest, in TOML; read again when it changes, and at SIGHUP
    #[arg(long, env = "WAYPOST_GATEWAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where views of services are kept, for a start without a registry
    #[arg(long, env = "WAYPOST_GATEWAY_VIEW_DIR", value_name = "DIR")]
    view_dir: Option<PathBuf>,
    /// The host that others reach this gateway at: it is registered then
    #[arg(long, env = "WAYPOST_GATEWAY_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,
    /// The service that it is registered as
    #[arg(long, env = "WAYPOST_GATEWAY_SERVICE", value_name = "NAME", default_value = "gateway")]
    service: String,
    /// What it is called in Via; made up where it is not said
    #[arg(long, env = "WAYPOST_GATEWAY_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Networks of proxies whose X-Forwarded headers are believed
    #[arg(long, env = "WAYPOST_GATEWAY_TRUST", value_name = "CIDR", value_delimiter = ',')]
    trust: Vec<IpNet>,
    /// How long the head of a request may take to come
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_HEAD_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    head_timeout: Duration,
    /// How long nothing of a request's body may come, or be taken of an answer's in HTTP/1.1
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_BODY_SILENCE_MAX",
        value_name = "TIME",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    body_silence_max: Duration,
    /// How long requests under way may take when it ends
    #[arg(long, env = "WAYPOST_GATEWAY_DRAIN", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Where the line of each request goes
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_ACCESS_LOG",
        value_name = "WHERE",
        default_value = "stdout"
    )]
    access_log: AccessLogTo,
    /// What else is logged, on standard error
    #[arg(long, env = "WAYPOST_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Log format [default: pretty on a terminal, else json]
    #[arg(long, env = "WAYPOST_LOG_FORMAT", value_name = "pretty|json")]
    log_format: Option<LogFormat>,
    /// Where the two addresses are written to once it serves: requests, operators, a line each
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccessLogTo {
    Stdout,
    Off,
}

/// Why it ends with another code than 0.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the registry: {0}")]
    Client(#[from] BuildError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{}: {source}", .path.display())]
    PortFile { path: PathBuf, source: io::Error },
    #[error("signals can't be heard: {0}")]
    Signals(io::Error),
    #[error("figures can't be kept: {0}")]
    Figures(#[from] metrics_exporter_prometheus::BuildError),
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error("a task of the gateway ended unexpectedly; the log names it")]
    TaskEnded,
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Client(_)
            | Self::Log(_)
            | Self::Start(StartError::Config(_) | StartError::Name(_)) => exit_code::CONFIGURATION,
            _ => exit_code::FAILED,
        }
    }
}

/// Runs the program with the process's arguments.
#[tokio::main(flavor = "current_thread")]
pub async fn run() -> ExitCode {
    let Err(failure) = serve(Arguments::parse()).await else { return ExitCode::SUCCESS };
    let line = format!("waypost-gateway: {failure}\n");
    // Where standard error is closed, the exit code has to do.
    let _written = io::Write::write_all(&mut anstream::stderr(), line.as_bytes());
    ExitCode::from(failure.exit_code())
}

async fn serve(arguments: Arguments) -> Result<(), Failure> {
    let levels = EnvFilter::try_new(&arguments.log)?;
    let _logs = telemetry::start(levels, arguments.log_format);
    let recorder = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM, Some(FIGURES_IDLE_MAX))
        .set_buckets(&BUCKETS)?;
    let prometheus = recorder.install_recorder()?;
    let stop = signals::stop().map_err(Failure::Signals)?;
    let port_file = arguments.port_file.clone();
    let (access_log, _writer) = access_log(arguments.access_log);
    let running = start(options(arguments, prometheus, access_log)?).await?;
    if let Some(path) = port_file {
        port_file::write(&path, &[running.address(), running.admin_address()])
            .map_err(|source| Failure::PortFile { path, source })?;
    }
    let ended = tokio::select! {
        () = stop => Ok(()),
        () = running.failed() => Err(Failure::TaskEnded),
    };
    tracing::info!("the gateway leaves");
    running.close().await;
    ended
}

/// Where the access log goes, with what writes it in the background.
fn access_log(to: AccessLogTo) -> (Option<Box<dyn io::Write + Send>>, Option<WorkerGuard>) {
    if to == AccessLogTo::Off {
        return (None, None);
    }
    let (lines, writer) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(PIECES_MAX)
        .finish(io::stdout());
    (Some(Box::new(Unhurried { lines, told: 0 })), Some(writer))
}

fn options(
    arguments: Arguments,
    prometheus: PrometheusHandle,
    access_log: Option<Box<dyn io::Write + Send>>,
) -> Result<Options, Failure> {
    let mut client = Client::builder().namespace(&arguments.namespace);
    for registry in &arguments.registry {
        client = client.registry(registry);
    }
    if let Some(directory) = &arguments.view_dir {
        client = client.view_dir(directory);
    }
    let name = arguments.name.unwrap_or_else(|| format!("waypost-{:016x}", fastrand::u64(..)));
    let service = arguments.service;
    Ok(Options {
        listen: arguments.listen,
        admin_listen: arguments.admin_listen,
        config: arguments.config,
        client: client.build()?,
        trusted: TrustedProxies::new(arguments.trust),
        name,
        advertised: arguments.advertise.map(|host| Advertised { service, host }),
        prometheus: Some(prometheus),
        access_log,
        head_timeout: arguments.head_timeout,
        body_silence_max: arguments.body_silence_max,
        drain: arguments.drain,
    })
}

/// Writes in a thread of its own. What that can't take in time is left out, and it is said how much.
struct Unhurried {
    lines: NonBlocking,
    /// How much had been left out when it was said last.
    told: usize,
}

impl io::Write for Unhurried {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.lines.write(bytes);
        let left_out = self.lines.error_counter().dropped_lines();
        if left_out > self.told {
            tracing::warn!(pieces = left_out - self.told, "lines of the access log were left out");
            self.told = left_out;
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }
}
