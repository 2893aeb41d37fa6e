//! Standard output and standard error: tables, JSON, notices. Colours appear on terminals only, and
//! not under `NO_COLOR`.

mod display;
mod json;
mod table;

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use clap::ValueEnum;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

pub(crate) use self::{
    display::{address, kind_name, reason_name, status_name, status_style},
    json::{CursorJson, InstanceJson},
    table::{Table, TableCell, format_row},
};
use crate::cli::{error::CommandError, escape::escape_json};

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Human-readable tables.
    Table,
    /// JSON, stable for programs.
    Json,
}

/// Prints `text` to standard output.
pub(crate) fn print(text: &dyn Display) -> Result<(), CommandError> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(CommandError::Output)
}

/// Prints a document as indented JSON.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), CommandError> {
    let json = serde_json::to_string_pretty(document);
    print(&safe_line(&json.map_err(unwritable)?))
}

/// Formats a record as one line of JSON.
pub(crate) fn json_line(record: &impl Serialize) -> Result<String, CommandError> {
    let json = serde_json::to_string(record).map_err(unwritable)?;
    Ok(safe_line(&json))
}

/// Prints `text` without blocking the caller's other work on a slow reader. If the future is
/// dropped, part of the text may be written.
pub(crate) async fn write(text: &str) -> Result<(), CommandError> {
    let plain = AutoStream::choice(&io::stdout()) == ColorChoice::Never;
    let text = if plain { strip_str(text).to_string() } else { text.to_owned() };
    let mut stdout = tokio::io::stdout();
    stdout.write_all(text.as_bytes()).await.map_err(CommandError::Output)?;
    stdout.flush().await.map_err(CommandError::Output)
}

/// Prints an error to standard error and returns the exit code for a failure.
pub(crate) fn fail(error: &dyn Display) -> ExitCode {
    print_notice(error);
    ExitCode::FAILURE
}

/// Prints a message to standard error: an error, or progress that is not the command's output.
pub(crate) fn print_notice(message: &dyn Display) {
    // If standard error is closed, there is nowhere left to report that.
    let _ = writeln!(io::stderr(), "waypost: {message}");
}

fn safe_line(json: &str) -> String {
    escape_json(json) + "\n"
}

fn unwritable(error: serde_json::Error) -> CommandError {
    CommandError::Output(error.into())
}
