//! Standard output: tables or JSON. Colour goes out only where it is wanted: to a terminal, and not
//! under `NO_COLOR`.

use std::{fmt::Display, io::Write};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use clap::ValueEnum;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::{failure::Failure, text::json_shown};

/// For whom to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Writes what `text` shows, as it is.
pub(super) fn print(text: &dyn Display) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Writes a document of JSON that people can read, too.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(document);
    print(&safe_line(&json.map_err(unwritable)?))
}

/// A record as a line of JSON.
pub(super) fn json_line(record: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(record).map_err(unwritable)?;
    Ok(safe_line(&json))
}

/// Writes `text` for commands that have more to do than to wait for a slow reader. Where the future
/// is dropped, some of the text may be written or not.
pub(super) async fn write(text: &str) -> Result<(), Failure> {
    let plain = AutoStream::choice(&std::io::stdout()) == ColorChoice::Never;
    let text = if plain { strip_str(text).to_string() } else { text.to_owned() };
    let mut stdout = tokio::io::stdout();
    stdout.write_all(text.as_bytes()).await.map_err(Failure::Output)?;
    stdout.flush().await.map_err(Failure::Output)
}

fn safe_line(json: &str) -> String {
    json_shown(json) + "\n"
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::Output(error.into())
}
