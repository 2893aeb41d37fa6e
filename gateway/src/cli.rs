//! The command line: arguments, set-up, and exit codes.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use ipnet::IpNet;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use waypost_client::{BuildError, Client, Credentials, FolderError, TokenError, TokenFile};
use waypost_serving::{
    exit_code, port_file, signals,
    telemetry::{self, LogFormat},
};

use crate::{Advertised, GatewayOptions, StartError, TrustedProxies, start};

/// The registry where the arguments name none: with an identity folder, and without.
const REGISTRY_DEFAULT_TLS: &str = "https://127.0.0.1:7510";
const REGISTRY_DEFAULT: &str = "http://127.0.0.1:7510";
/// The time after which an idle series of metrics is dropped: instances come and go.
const METRICS_IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// The buckets of times, in seconds.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// The batches of the access log that may wait to be written, of 32 KiB each at most.
const BATCHES_MAX: usize = 1_024;

/// One URL over all services of a Waypost registry: `http://gateway/orders/7` reaches an instance
/// of `orders`.
#[derive(Debug, Parser)]
#[command(version)]
struct GatewayArguments {
    /// Listen address for requests
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// Listen address for operators: /metrics, /health/live, /health/ready
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_ADMIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8081"
    )]
    admin_listen: SocketAddr,
    /// Registry URL, https://HOST:PORT, or http://HOST:PORT for one without TLS; several with
    /// commas between them [default: http://127.0.0.1:7510, with --tls https://127.0.0.1:7510]
    #[arg(long, env = "WAYPOST_REGISTRY", value_name = "URL", value_delimiter = ',')]
    registry: Vec<String>,
    /// Identity folder for connections to the registry: ca.crt, and tls.crt with tls.key unless a
    /// token names the gateway; followed while it changes
    #[arg(long, env = "WAYPOST_TLS", value_name = "DIR")]
    tls: Option<PathBuf>,
    /// File with the token for the registry; followed while it changes
    #[arg(long, env = "WAYPOST_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Namespace of the services
    #[arg(long, env = "WAYPOST_NAMESPACE", value_name = "NAME", default_value = "default")]
    namespace: String,
    /// TOML configuration file; reloaded when it changes, and at SIGHUP
    #[arg(long, env = "WAYPOST_GATEWAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for views of services, to start from while the registry is unreachable
    #[arg(long, env = "WAYPOST_GATEWAY_VIEW_DIR", value_name = "DIR")]
    view_dir: Option<PathBuf>,
    /// Host at which others reach this gateway; registers the gateway as a service
    #[arg(long, env = "WAYPOST_GATEWAY_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,
    /// Name of the service that the gateway is registered as
    #[arg(long, env = "WAYPOST_GATEWAY_SERVICE", value_name = "NAME", default_value = "gateway")]
    service: String,
    /// Name in Via, unique for each gateway [default: random]
    #[arg(long, env = "WAYPOST_GATEWAY_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Networks of proxies whose X-Forwarded headers are trusted
    #[arg(long, env = "WAYPOST_GATEWAY_TRUST", value_name = "CIDR", value_delimiter = ',')]
    trust: Vec<IpNet>,
    /// Timeout for the head of a request
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_HEAD_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    head_timeout: Duration,
    /// Longest pause in the body of a request, and, over HTTP/1.1, in which the caller reads
    /// nothing of the response
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_BODY_SILENCE_MAX",
        value_name = "TIME",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    body_silence_max: Duration,
    /// Time for requests in flight at shutdown
    #[arg(long, env = "WAYPOST_GATEWAY_DRAIN", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Destination of the access log
    #[arg(
        long,
        env = "WAYPOST_GATEWAY_ACCESS_LOG",
        value_name = "WHERE",
        default_value = "stdout"
    )]
    access_log: AccessLogTo,
    /// Log levels, in the filter syntax of `tracing`
    #[arg(long, env = "WAYPOST_LOG", value_name = "LEVELS", default_value = "info")]
    log: String,
    /// Log format [default: pretty on a terminal, else json]
    #[arg(long, env = "WAYPOST_LOG_FORMAT", value_name = "pretty|json")]
    log_format: Option<LogFormat>,
    /// File to write the bound addresses to, one a line: requests, operators
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccessLogTo {
    Stdout,
    Off,
}

/// The reason for an exit code other than 0.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error("--registry: {0}")]
    Client(#[from] BuildError),
    #[error("--tls: {0}")]
    Tls(#[from] FolderError),
    #[error("--token-file: {0}")]
    Token(#[from] TokenError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("can't write the bound addresses to {}: {source}", .path.display())]
    PortFile { path: PathBuf, source: io::Error },
    #[error("can't handle signals: {0}")]
    Signals(io::Error),
    #[error("can't record metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error("a task of the gateway ended unexpectedly; the log names it")]
    TaskEnded,
}

impl GatewayError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Client(_)
            | Self::Tls(_)
            | Self::Token(_)
            | Self::Log(_)
            | Self::Start(StartError::Config(_) | StartError::Name(_)) => exit_code::CONFIGURATION,
            _ => exit_code::FAILED,
        }
    }
}

/// Runs the program with the process's arguments.
#[tokio::main(flavor = "current_thread")]
pub async fn run() -> ExitCode {
    let Err(error) = serve(GatewayArguments::parse()).await else { return ExitCode::SUCCESS };
    let line = format!("waypost-gateway: {error}\n");
    // Without standard error, the exit code has to do.
    let _written = io::Write::write_all(&mut anstream::stderr(), line.as_bytes());
    ExitCode::from(error.exit_code())
}

async fn serve(arguments: GatewayArguments) -> Result<(), GatewayError> {
    let levels = EnvFilter::try_new(&arguments.log)?;
    let _logs = telemetry::start(levels, arguments.log_format);
    let recorder = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM, Some(METRICS_IDLE_MAX))
        .set_buckets(&BUCKETS)?;
    let prometheus = recorder.install_recorder()?;
    let stop = signals::stop().map_err(GatewayError::Signals)?;
    let port_file = arguments.port_file.clone();
    let (access_log, _writer) = access_log(arguments.access_log);
    let running = start(options(arguments, prometheus, access_log)?).await?;
    if let Some(path) = port_file {
        port_file::write(&path, &[running.address(), running.admin_address()])
            .map_err(|source| GatewayError::PortFile { path, source })?;
    }
    let ended = tokio::select! {
        () = stop => Ok(()),
        () = running.wait_failed() => Err(GatewayError::TaskEnded),
    };
    tracing::info!("shutting down");
    running.close().await;
    ended
}

/// Returns the writer of the access log, and the guard of the thread that it writes on.
fn access_log(to: AccessLogTo) -> (Option<Box<dyn io::Write + Send>>, Option<WorkerGuard>) {
    if to == AccessLogTo::Off {
        return (None, None);
    }
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BATCHES_MAX)
        .finish(io::stdout());
    (Some(Box::new(LossyWriter { writer, dropped: 0 })), Some(guard))
}

fn options(
    arguments: GatewayArguments,
    prometheus: PrometheusHandle,
    access_log: Option<Box<dyn io::Write + Send>>,
) -> Result<GatewayOptions, GatewayError> {
    let mut client = Client::builder().namespace(&arguments.namespace);
    let registries = match (arguments.registry.is_empty(), &arguments.tls) {
        (false, _) => arguments.registry,
        (true, None) => vec![REGISTRY_DEFAULT.to_owned()],
        (true, Some(_)) => vec![REGISTRY_DEFAULT_TLS.to_owned()],
    };
    for registry in &registries {
        client = client.registry(registry);
    }
    if let Some(credentials) = credentials(arguments.tls, arguments.token_file)? {
        client = client.credentials(credentials);
    }
    if let Some(directory) = &arguments.view_dir {
        client = client.view_dir(directory);
    }
    let name = arguments.name.unwrap_or_else(|| format!("waypost-{:016x}", fastrand::u64(..)));
    let service = arguments.service;
    Ok(GatewayOptions {
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

/// Reads the credentials for the registry; `None` without any.
fn credentials(
    tls: Option<PathBuf>,
    token_file: Option<PathBuf>,
) -> Result<Option<Credentials>, GatewayError> {
    let folder = tls.map(Credentials::folder).transpose()?;
    let token = token_file.map(TokenFile::open).transpose()?;
    Ok(match token {
        Some(token) => Some(folder.unwrap_or_default().token(token)),
        None => folder,
    })
}

/// Writes on a thread of its own. Batches that the thread can't write in time are dropped, and
/// their number logged.
struct LossyWriter {
    writer: NonBlocking,
    /// The dropped batches that were logged.
    dropped: usize,
}

impl io::Write for LossyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes);
        let dropped = self.writer.error_counter().dropped_lines();
        if dropped > self.dropped {
            let batches = dropped - self.dropped;
            tracing::warn!(batches, "standard output is too slow, dropped lines of the access log");
            self.dropped = dropped;
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
