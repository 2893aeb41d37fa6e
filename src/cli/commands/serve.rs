//! `waypost serve`: runs the registry until a signal stops it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use rustix::process::Signal as SignalNumber;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::error;
use waypost_serving::{exit_code, signals, telemetry};

use crate::{
    cli::output::fail,
    config::{Config, Overrides},
    server::{BindError, RunError, Server},
};

/// Run the registry.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// TOML configuration file; flags and environment variables take precedence.
    #[arg(long, value_name = "FILE", env = "WAYPOST_CONFIG")]
    config: Option<PathBuf>,
    /// Listen address; port 0 picks a free port [default: 127.0.0.1:7510].
    #[arg(long, value_name = "ADDR", env = "WAYPOST_LISTEN")]
    listen: Option<String>,
    /// File to write the bound address to, once the server accepts connections.
    #[arg(long, value_name = "PATH")]
    port_file: Option<PathBuf>,
    /// Data directory of the disk store [default: ./waypost-data].
    #[arg(long, value_name = "DIR", env = "WAYPOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Storage backend: `disk` (durable) or `memory` (lost on restart); `etcd` is not available yet
    /// [default: disk].
    #[arg(long, value_name = "disk|memory|etcd", env = "WAYPOST_STORE")]
    store: Option<String>,
    /// Identity folder with `tls.crt`, `tls.key` and `ca.crt`: the port speaks TLS only [default:
    /// clear text].
    #[arg(long, value_name = "DIR", env = "WAYPOST_TLS")]
    tls: Option<PathBuf>,
    /// Policy file: which callers may do what [default: none, every caller may do everything].
    #[arg(long, value_name = "FILE", env = "WAYPOST_POLICY")]
    policy: Option<PathBuf>,
    /// Let everyone in who reaches the port, on any address. Never where strangers can.
    #[arg(long)]
    insecure: bool,
    /// File for audit records, with mode 0600 [default: with a policy the log, else none].
    #[arg(long, value_name = "FILE", env = "WAYPOST_AUDIT")]
    audit: Option<PathBuf>,
    /// Log format [default: pretty on a terminal, else json].
    #[arg(long, value_name = "pretty|json", env = "WAYPOST_LOG_FORMAT")]
    log_format: Option<String>,
    /// Log levels, in the filter syntax of `tracing` [default: info].
    #[arg(long, value_name = "LEVELS", env = "WAYPOST_LOG")]
    log: Option<String>,
}

pub(crate) fn run(arguments: ServeArguments) -> ExitCode {
    let ServeArguments {
        config,
        listen,
        port_file,
        data_dir,
        store,
        tls,
        policy,
        insecure,
        audit,
        log_format,
        log,
    } = arguments;
    let overrides = Overrides {
        config,
        listen,
        port_file,
        data_dir,
        store,
        tls,
        policy,
        insecure,
        audit,
        log,
        log_format,
    };
    let config = match Config::load(overrides) {
        Ok(config) => config,
        Err(errors) => {
            fail(&errors);
            return ExitCode::from(exit_code::CONFIGURATION);
        }
    };
    // Loading the configuration has checked the levels.
    let _logs = telemetry::start(config.log.parse().unwrap_or_default(), config.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("can't start the runtime: {error}")),
    };
    let code = runtime.block_on(serve(config));
    // The server has closed its connections: remaining tasks of theirs have nothing to wait for.
    runtime.shutdown_timeout(Duration::from_millis(500));
    code
}

async fn serve(config: Config) -> ExitCode {
    let (stop, _file_size_signal) =
        match signals::stop().and_then(|stop| Ok((stop, catch_file_size_signal()?))) {
            Ok(signals) => signals,
            Err(error) => return fail(&format!("can't handle signals: {error}")),
        };
    let server = match Server::bind(config) {
        Ok(server) => server,
        Err(BindError::Configuration(errors)) => {
            fail(&errors);
            return ExitCode::from(exit_code::CONFIGURATION);
        }
        Err(error) => return fail(&error),
    };
    match server.run(stop).await {
        Ok(()) => ExitCode::SUCCESS,
        // It never served: report on standard error, where the program was started.
        Err(
            error @ (RunError::Store(_)
            | RunError::Audit(_)
            | RunError::Thread(_)
            | RunError::PortFile { .. }),
        ) => fail(&error),
        Err(error) => {
            error!(%error, "server failed, exiting");
            ExitCode::FAILURE
        }
    }
}

/// Catches SIGXFSZ: a limit on file size then fails the write instead of terminating the process.
fn catch_file_size_signal() -> std::io::Result<Signal> {
    signal(SignalKind::from_raw(SignalNumber::XFSZ.as_raw()))
}
