//! Reads `[cors]`: the permissions of pages from other origins (CORS, Fetch standard).

use std::{str::FromStr, time::Duration};

use http::{HeaderName, HeaderValue, Method, Uri};
use waypost_config::{
    Invalid, Section,
    value::{Value, boolean, duration, invalid, string},
};

use super::value::{header, method};

/// The permissions of pages from other origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cors {
    /// The origins of the pages.
    pub(crate) origins: Allowed<HeaderValue>,
    /// The methods of their requests, beside GET, HEAD and POST, which need no permission. Default:
    /// none.
    pub(crate) methods: Allowed<Method>,
    /// The headers that they may set, beside those that need no permission. Default: none.
    pub(crate) headers: Allowed<HeaderName>,
    /// The headers of responses that they may read, beside those that need no permission. Default:
    /// none.
    pub(crate) exposed: Allowed<HeaderName>,
    /// Allows requests with credentials, such as cookies. Excludes [`Allowed::Any`]. Default: no.
    pub(crate) credentials: bool,
    /// The time for which a browser may cache the permissions. Default: the browser's own.
    pub(crate) max_age: Option<Duration>,
}

/// The allowed values of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allowed<T> {
    /// All values; `["*"]` in the file.
    Any,
    /// The listed values.
    These(Vec<T>),
}

impl Cors {
    /// Reads `[cors]`.
    pub(super) fn read(section: &mut Section<'_>) -> Result<Self, Invalid> {
        let origins = match allowed(section, "origins", origin) {
            Ok(None) => {
                Err(section.error("origins", "is missing: list origins, or [\"*\"] for all"))
            }
            Ok(Some(origins)) => Ok(origins),
            Err(invalid) => Err(invalid),
        };
        let methods = allowed(section, "methods", method);
        let headers = allowed(section, "headers", header);
        let exposed = allowed(section, "exposed", header);
        let credentials = section.read("credentials", boolean);
        let max_age = section.read("max_age", duration);
        let cors = Self {
            origins: origins?,
            methods: methods?.unwrap_or_default(),
            headers: headers?.unwrap_or_default(),
            exposed: exposed?.unwrap_or_default(),
            credentials: credentials?.unwrap_or_default(),
            max_age: max_age?,
        };
        cors.check(section)?;
        Ok(cors)
    }

    /// Checks the credentials: browsers reject a response that allows any value with credentials.
    fn check(&self, section: &mut Section<'_>) -> Result<(), Invalid> {
        let any = [
            ("origins", self.origins == Allowed::Any),
            ("methods", self.methods == Allowed::Any),
            ("headers", self.headers == Allowed::Any),
            ("exposed", self.exposed == Allowed::Any),
        ];
        let mut outcome = Ok(());
        for (key, _) in any.into_iter().filter(|(_, any)| *any && self.credentials) {
            let message = "must be listed, as credentials are allowed: '*' is not enough";
            outcome = Err(section.error(key, message));
        }
        outcome
    }
}

impl<T> Default for Allowed<T> {
    /// No value.
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

/// Reads `["*"]`, or a list of allowed values.
fn allowed<T>(
    section: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(Value<'_>) -> Result<T, String>,
) -> Result<Option<Allowed<T>>, Invalid> {
    let listed = section.nonempty_list(key, |value| match value.as_str() {
        Some("*") => Ok(None),
        _ => read(value).map(Some),
    })?;
    let Some(listed) = listed else { return Ok(None) };
    match &listed[..] {
        [None] => Ok(Some(Allowed::Any)),
        _ if listed.iter().any(Option::is_none) => {
            Err(section.error(key, "must have nothing beside '*'"))
        }
        _ => Ok(Some(Allowed::These(listed.into_iter().flatten().collect()))),
    }
}

/// Reads an origin as browsers send it: a scheme, a host, and a port other than the default.
fn origin(value: Value<'_>) -> Result<HeaderValue, String> {
    let text = string(value)?.to_ascii_lowercase();
    let canonical = Uri::from_str(&text).ok().and_then(|uri| {
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        Some(format!("{}://{authority}", uri.scheme_str()?))
    });
    canonical
        .filter(|canonical| *canonical == text)
        .and_then(|origin| HeaderValue::try_from(origin).ok())
        .ok_or_else(|| {
            invalid(&text, &"must be an origin such as https://app.example.com, without a path")
        })
}
