//! The gateway's configuration: one TOML file, read as a whole into a value that does not change. All
//! mistakes are found at once; what has one is never in force.

mod cors;
mod limits;
mod mistakes;
mod route;
mod section;
mod value;

use std::fmt;

use serde::Deserialize;
use toml::{
    Spanned, Table,
    de::{DeTable, DeValue, ValueDeserializer},
};

pub use self::{
    cors::{Allowed, Cors},
    limits::Limits,
    mistakes::{Mistake, Mistakes},
};
use self::{
    mistakes::{Noted, Notes},
    route::{Rest, read_routes},
    section::{Read, Section},
    value::flag,
};
use crate::routes::{Implicit, RouteTable};

/// What the gateway is told. The default is what an empty file says.
///
/// ```
/// use waypost_gateway::config::Config;
///
/// let config = Config::parse("
///     [limits]
///     timeout = '10s'
///
///     [[routes]]
///     path = '/v1/orders'
///     service = 'orders'
/// ")?;
/// assert_eq!(config.routes.routes()[0].timeout.as_secs(), 10);
///
/// let mistakes = Config::parse("limits.timeout = 'soon'\nimplicitly = true").unwrap_err();
/// assert_eq!(mistakes.0.len(), 2);
/// # Ok::<(), waypost_gateway::config::Mistakes>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The bounds of each request.
    pub limits: Limits,
    /// Whether answers are compressed for callers that take that. Default: they aren't, as what is secret
    /// and what a caller chose, in one answer, can be told apart by its length (BREACH).
    pub compression: bool,
    /// What pages of other origins may do. Default: nothing is said of it.
    pub cors: Option<Cors>,
    /// How clients tell who they are. Default: they can't.
    pub auth: Option<AuthTable>,
    /// Where requests go. Default: by the implicit way; with routes or `[auth]` in the file, by routes
    /// alone, unless `implicit = true` is written as well.
    pub routes: RouteTable,
}

/// The table `[auth]`, as it is in the file. What it says is left out where it is shown for debugging:
/// there may be secrets.
#[derive(Clone, PartialEq)]
pub struct AuthTable {
    /// Its keys.
    pub table: Table,
    /// The line of the file where it begins.
    pub line: usize,
}

impl Default for Config {
    fn default() -> Self {
        let limits = Limits::default();
        let implicit = Implicit::Routed { timeout: limits.timeout };
        let routes = RouteTable::new([], implicit);
        Self { limits, compression: false, cors: None, auth: None, routes }
    }
}

impl fmt::Debug for AuthTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuthTable").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the text of a file.
    ///
    /// Errors: all that is wrong with it; of text that is no TOML the first thing.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let mut notes = Notes::new(text);
        let read = match DeTable::parse(text) {
            Ok(table) => {
                let mut file = Section::whole(table.get_ref(), &mut notes);
                let read = Self::read(&mut file);
                file.finish();
                read
            }
            Err(error) => {
                let begin = error.span().map(|span| span.start);
                Err(notes.note(begin, "", error.message().replace('\n', " ")))
            }
        };
        notes.finish(read)
    }

    fn read(file: &mut Section<'_>) -> Result<Self, Noted> {
        let implicit = file.read("implicit", flag);
        let limits = file.section("limits", Limits::read).map(Option::unwrap_or_default);
        let compression = file.read("compression", flag);
        let cors = file.section("cors", Cors::read);
        let auth = read_auth(file);
        let timeout = limits.clone().unwrap_or_default().timeout;
        let routes = read_routes(file, Rest { timeout, auth: file.has("auth") });
        let routes = routes?;
        // Beside written routes and `[auth]` it would be a way around them.
        let is_implicit = implicit?.unwrap_or_else(|| routes.is_empty() && !file.has("auth"));
        let implicit = if is_implicit { Implicit::Routed { timeout } } else { Implicit::Off };
        let routes = RouteTable::new(routes, implicit);
        let compression = compression?.unwrap_or_default();
        Ok(Self { limits: limits?, compression, cors: cors?, auth: auth?, routes })
    }
}

fn read_auth(file: &mut Section<'_>) -> Read<AuthTable> {
    let Some(value) = file.raw("auth") else { return Ok(None) };
    let line = file.line(value.span().start);
    match table_of(value) {
        Ok(table) => Ok(Some(AuthTable { table, line })),
        Err(message) => Err(file.note("auth", message)),
    }
}

fn table_of(value: &Spanned<DeValue<'_>>) -> Result<Table, String> {
    if !value.get_ref().is_table() {
        return Err(value::must_be("a table", value.get_ref()));
    }
    let table = Table::deserialize(ValueDeserializer::from(value.clone()));
    // Nothing of the value: it may be a secret.
    table.map_err(|_| "has a number that is too large".to_owned())
}

#[cfg(test)]
mod tests;
