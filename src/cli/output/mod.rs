//! Standard output: tables or JSON. Colour goes out only where it is wanted: to a terminal, and not
//! under `NO_COLOR`.

mod record;
mod table;
mod text;

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
    record::{CursorRecord, InstanceRecord},
    table::{Cell, Table, line},
    text::{address, kind_name, reason_name, status_name, status_style},
};
use crate::cli::{escape::json_shown, failure::Failure};

/// For whom to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Writes what `text` shows, as it is.
pub(crate) fn print(text: &dyn Display) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Writes a document of JSON that people can read, too.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(document);
    print(&safe_line(&json.map_err(unwritable)?))
}

/// A record as a line of JSON.
pub(crate) fn json_line(record: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(record).map_err(unwritable)?;
    Ok(safe_line(&json))
}

/// Writes `text` for commands that have more to do than to wait for a slow reader. Where the future
/// is dropped, some of the text may be written or not.
pub(crate) async fn write(text: &str) -> Result<(), Failure> {
    let plain = AutoStream::choice(&io::stdout()) == ColorChoice::Never;
    let text = if plain { strip_str(text).to_string() } else { text.to_owned() };
    let mut stdout = tokio::io::stdout();
    stdout.write_all(text.as_bytes()).await.map_err(Failure::Output)?;
    stdout.flush().await.map_err(Failure::Output)
}

/// Says what went wrong, on standard error; the exit code for it.
pub(crate) fn fail(error: &dyn Display) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

/// Says something that is not the command's output, on standard error.
pub(crate) fn say(what: &dyn Display) {
    // Where nobody listens, there is nobody to tell.
    let _ = writeln!(io::stderr(), "waypost: {what}");
}

fn safe_line(json: &str) -> String {
    json_shown(json) + "\n"
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::Output(error.into())
}
