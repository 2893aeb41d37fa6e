//! Logs: to standard error, as people or as machines read them. Nobody who logs waits for whoever
//! reads: a thread of its own writes, and where it can't keep up, lines are dropped.

use std::io::{self, BufWriter, IsTerminal};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

/// Lines that wait to be written; further ones are dropped.
const LINES_MAX: usize = 16 * 1024;

/// Starts to log. Levels are in the filter syntax of `tracing-subscriber`. What waits to be written
/// is written when the guard is dropped, as far as somebody reads it within a second.
pub(crate) fn start(levels: EnvFilter, format: Option<LogFormat>) -> WorkerGuard {
    let terminal = io::stderr().is_terminal();
    let chosen = format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .finish(BufWriter::new(io::stderr()));
    let builder = fmt().with_env_filter(levels).with_writer(writer).with_ansi(terminal);
    // Fails where a program that embeds the server logs already: then its logs are the logs.
    let _started = match chosen {
        LogFormat::Pretty => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    guard
}
