//! Logs: to standard error, as people or as machines read them.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

/// Starts to log. Levels are in the filter syntax of `tracing-subscriber`.
pub(crate) fn start(levels: EnvFilter, format: Option<LogFormat>) {
    let terminal = io::stderr().is_terminal();
    let chosen = format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let builder = fmt().with_env_filter(levels).with_writer(io::stderr).with_ansi(terminal);
    // Fails where a program that embeds the server logs already: then its logs are the logs.
    let _started = match chosen {
        LogFormat::Pretty => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
