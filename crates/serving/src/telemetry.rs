//! Logs on standard error, for people or for machines. A thread of its own writes them, so that no
//! task waits for a slow reader; lines that it can't keep up with are dropped.

use std::{
    io::{self, BufWriter, IsTerminal},
    str::FromStr,
};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt};

/// Lines that wait to be written; further ones are dropped.
const LINES_MAX: usize = 16 * 1024;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For machines: a JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("must be pretty or json"),
        }
    }
}

/// Starts to log. `levels` is in the filter syntax of `tracing-subscriber`; without a format, lines
/// are pretty on a terminal and JSON elsewhere. Dropping the guard writes the waiting lines, for a
/// second at most.
#[must_use = "dropping the guard stops the log"]
pub fn start(levels: EnvFilter, format: Option<LogFormat>) -> WorkerGuard {
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .finish(BufWriter::new(io::stderr()));
    let builder = fmt().with_env_filter(levels).with_writer(writer).with_ansi(terminal);
    // Fails in a program that embeds the server and logs already: its subscriber stays.
    let _started = match format {
        LogFormat::Pretty => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    guard
}
