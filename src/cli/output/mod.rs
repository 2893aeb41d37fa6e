//! Standard output: tables or JSON. Colour goes out only where it is wanted: to a terminal, and not
//! under `NO_COLOR`.

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

/// For whom to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Writes what `text` shows, as it is.
pub(crate) fn print(text: &dyn Display) -> Result<(), CommandError> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(CommandError::Output)
}

/// Writes a document of JSON that people can read, too.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), CommandError> {
    let json = serde_json::to_string_pretty(document);
    print(&safe_line(&json.map_err(unwritable)?))
}

/// A record as a line of JSON.
pub(crate) fn json_line(record: &impl Serialize) -> Result<String, CommandError> {
    let json = serde_json::to_string(record).map_err(unwritable)?;
    Ok(safe_line(&json))
}

/// Writes `text` for commands that have more to do than to wait for a slow reader. Where the future
/// is dropped, some of the text may be written or not.
pub(crate) async fn write(text: &str) -> Result<(), CommandError> {
    let plain = AutoStream::choice(&io::stdout()) == ColorChoice::Never;
    let text = if plain { strip_str(text).to_string() } else { text.to_owned() };
    let mut stdout = tokio::io::stdout();
    stdout.write_all(text.as_bytes()).await.map_err(CommandError::Output)?;
    stdout.flush().await.map_err(CommandError::Output)
}

/// Says what went wrong, on standard error; the exit code for it.
pub(crate) fn fail(error: &dyn Display) -> ExitCode {
    print_notice(error);
    ExitCode::FAILURE
}

/// Says something that is not the command's output, on standard error.
pub(crate) fn print_notice(message: &dyn Display) {
    // Where nobody listens, there is nobody to tell.
    let _ = writeln!(io::stderr(), "waypost: {message}");
}

fn safe_line(json: &str) -> String {
    escape_json(json) + "\n"
}

fn unwritable(error: serde_json::Error) -> CommandError {
    CommandError::Output(error.into())
}
