//! The gateway's configuration: one TOML file, read as a whole into a value that never changes.
//! Invariant: a file with an error yields no configuration, and reports all of its errors.

mod cors;
mod limits;
mod route;
mod value;

use std::path::Path;

use waypost_auth::Authenticator;
use waypost_config::{ConfigErrors, Invalid, Section, parse, value::boolean};

use self::route::{RouteDefaults, read_routes};
pub(crate) use self::{
    cors::{Allowed, Cors},
    limits::RequestLimits,
};
use crate::routes::{Implicit, RouteTable};

/// The gateway's configuration. The default is that of an empty file.
#[derive(Debug)]
pub(crate) struct GatewayConfig {
    /// The bounds of each request.
    pub(crate) limits: RequestLimits,
    /// Compresses responses for callers that accept it. Default: no, since the length of a response
    /// with a secret and text of a caller's choice reveals the secret (BREACH).
    pub(crate) compression: bool,
    /// The permissions of pages from other origins. Default: no CORS headers.
    pub(crate) cors: Option<Cors>,
    /// Identifies callers. Default: no caller is identified.
    pub(crate) auth: Option<Authenticator>,
    /// The routes. Default: the implicit one; none beside routes or `[auth]`, unless the file sets
    /// `implicit = true`.
    pub(crate) routes: RouteTable,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        let limits = RequestLimits::default();
        let implicit = Implicit::Routed { timeout: limits.timeout };
        let routes = RouteTable::new([], implicit);
        Self { limits, compression: false, cors: None, auth: None, routes }
    }
}

impl GatewayConfig {
    /// Reads the text of a file; the files that it names are relative to `directory`. Blocks.
    ///
    /// # Errors
    /// All errors of the file; the first syntax error, if the text is not TOML.
    pub(crate) fn parse(text: &str, directory: &Path) -> Result<Self, ConfigErrors> {
        parse(text, |file| Self::read(file, directory))
    }

    fn read(file: &mut Section<'_>, directory: &Path) -> Result<Self, Invalid> {
        let implicit = file.read("implicit", boolean);
        let limits = file.table("limits", RequestLimits::read).map(Option::unwrap_or_default);
        let compression = file.read("compression", boolean);
        let cors = file.table("cors", Cors::read);
        let auth = file.table("auth", |section| Authenticator::read(section, directory));
        let timeout = limits.clone().unwrap_or_default().timeout;
        let routes = read_routes(file, RouteDefaults { timeout, has_auth: file.has("auth") });
        let routes = routes?;
        // The implicit route would bypass the written routes and `[auth]`.
        let is_implicit = implicit?.unwrap_or_else(|| routes.is_empty() && !file.has("auth"));
        let implicit = if is_implicit { Implicit::Routed { timeout } } else { Implicit::Off };
        let routes = RouteTable::new(routes, implicit);
        let compression = compression?.unwrap_or_default();
        Ok(Self { limits: limits?, compression, cors: cors?, auth: auth?, routes })
    }
}

#[cfg(test)]
mod tests;
