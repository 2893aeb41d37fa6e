//! `waypost serve`: runs the registry until a signal ends it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use rustix::process::Signal as SignalNumber;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::error;
use waypost_serving::{exit_code, signals, telemetry};

use crate::{
    cli::output::fail,
    config::{Config, Overrides},
    server::{RunError, Server},
};

/// Run the registry.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// A TOML file with settings; flags and environment beat it.
    #[arg(long, value_name = "FILE", env = "WAYPOST_CONFIG")]
    config: Option<PathBuf>,
    /// The address for everything; port 0 picks one [default: 127.0.0.1:7510].
    #[arg(long, value_name = "ADDR", env = "WAYPOST_LISTEN")]
    listen: Option<String>,
    /// Write the bound address to this file once it serves.
    #[arg(long, value_name = "PATH")]
    port_file: Option<PathBuf>,
    /// Where the embedded store lives [default: ./waypost-data].
    #[arg(long, value_name = "DIR", env = "WAYPOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// What keeps the registry: `disk` in the data directory, `memory` nothing; `etcd` is not built
    /// yet [default: disk].
    #[arg(long, value_name = "disk|memory|etcd", env = "WAYPOST_STORE")]
    store: Option<String>,
    /// How to log [default: pretty on a terminal, else json].
    #[arg(long, value_name = "pretty|json", env = "WAYPOST_LOG_FORMAT")]
    log_format: Option<String>,
    /// What to log, in tracing's filter syntax [default: info].
    #[arg(long, value_name = "LEVELS", env = "WAYPOST_LOG")]
    log: Option<String>,
}

pub(crate) fn run(arguments: ServeArguments) -> ExitCode {
    let ServeArguments { config, listen, port_file, data_dir, store, log_format, log } = arguments;
    let overrides = Overrides { config, listen, port_file, data_dir, store, log, log_format };
    let config = match Config::load(overrides) {
        Ok(config) => config,
        Err(mistakes) => {
            fail(&mistakes);
            return ExitCode::from(exit_code::CONFIGURATION);
        }
    };
    // The levels were checked with the rest of the configuration.
    let _logs = telemetry::start(config.log.parse().unwrap_or_default(), config.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("can't start the runtime: {error}")),
    };
    let code = runtime.block_on(serve(config));
    // Connections were cut; what is left of their tasks has nothing to wait for.
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
        Err(error) => return fail(&error),
    };
    match server.run(stop).await {
        Ok(()) => ExitCode::SUCCESS,
        // It never served: that is for whoever started it.
        Err(error @ (RunError::Store(_) | RunError::Thread(_) | RunError::PortFile { .. })) => {
            fail(&error)
        }
        Err(error) => {
            error!(%error, "the server ended");
            ExitCode::FAILURE
        }
    }
}

/// While it is there, a limit on the size of files makes writes fail instead of ending the process.
fn catch_file_size_signal() -> std::io::Result<Signal> {
    signal(SignalKind::from_raw(SignalNumber::XFSZ.as_raw()))
}
