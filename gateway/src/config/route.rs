//! Routes as the file has them: each by itself, and what two of them can't have both.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    str::FromStr,
    time::Duration,
};

use http::{HeaderName, Method};
use waypost_client::{Filter, Policy};
use waypost_config::{
    Invalid, Section,
    value::{Value, boolean, count, from_str, integer, invalid, one_of, positive_duration, string},
};
use waypost_core::model::Name;

use super::value::method;
use crate::guard::{PathFeatures, is_never_served};
use crate::routes::{Access, HostPattern, KeySource, Methods, PathPrefix, Prefix, Rate, Route};

/// How often more a request can be sent, at most.
const RETRIES_MAX: u32 = 10;

/// What routes need to know of the rest of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// The time until an answer's head is there, where a route says nothing of it.
    pub(super) timeout: Duration,
    /// Whether it says how clients tell who they are.
    pub(super) auth: bool,
}

/// One route, as far as it could be read.
#[derive(Debug)]
struct Draft {
    path: String,
    offset: usize,
    line: usize,
    name: Option<Name>,
    requests: Option<Requests>,
    route: Result<Route, Invalid>,
}

/// Which requests a route is for.
#[derive(Clone, Debug)]
struct Requests {
    host: HostPattern,
    path: PathPrefix,
    methods: Methods,
}

/// Reads `[[routes]]`.
pub(super) fn read_routes(file: &mut Section<'_>, rest: Rest) -> Result<Vec<Route>, Invalid> {
    let drafts = file.tables("routes", |section| read_draft(section, rest))?;
    let outcome = check_names(file, &drafts).and(check_requests(file, &drafts));
    let routes: Result<_, _> = drafts.into_iter().map(|draft| draft.route).collect();
    outcome.and(routes)
}

fn read_draft(section: &mut Section<'_>, rest: Rest) -> Draft {
    let requests = read_requests(section);
    let name = section.read("name", from_str::<Name>);
    Draft {
        path: section.path().to_owned(),
        offset: section.offset(),
        line: section.line(section.offset()),
        name: name.clone().ok().flatten(),
        requests: requests.clone().ok(),
        route: read_route(section, requests, name, rest),
    }
}

fn read_requests(section: &mut Section<'_>) -> Result<Requests, Invalid> {
    let host = section.read("host", from_str::<HostPattern>);
    let path = section.read("path", from_str::<PathPrefix>);
    let methods = section.nonempty_list("methods", served_method);
    Ok(Requests {
        host: host?.unwrap_or_default(),
        path: path?.unwrap_or_default(),
        methods: methods?.map_or(Methods::All, Methods::These),
    })
}

/// All is read before anything that is bad ends it.
fn read_route(
    section: &mut Section<'_>,
    requests: Result<Requests, Invalid>,
    given_name: Result<Option<Name>, Invalid>,
    rest: Rest,
) -> Result<Route, Invalid> {
    let service = read_service(section);
    let prefix = read_prefix(section);
    let path_features = read_path_features(section);
    let filter = read_filter(section);
    let balance = read_balance(section);
    let timeout = section.read("timeout", positive_duration);
    let retries = section.read("retries", |value| integer(value, 0..=RETRIES_MAX));
    let idempotent = section.read("idempotent", boolean);
    let hedge = section.read("hedge", positive_duration);
    let in_flight = section.read("in_flight", count);
    let http2 = section.read("http2", boolean);
    let auth = read_access(section, rest.auth);
    let rate = section.table("rate", read_rate);
    let Requests { host, path, methods } = requests?;
    let (policy, key) = balance?;
    Ok(Route {
        given_name: given_name?,
        host,
        path,
        path_features: path_features?,
        methods,
        service: service?,
        prefix: prefix?,
        filter: filter?,
        policy,
        key,
        timeout: timeout?.unwrap_or(rest.timeout),
        retries: retries?.unwrap_or(Route::RETRIES),
        idempotent: idempotent?.unwrap_or_default(),
        hedge: hedge?,
        in_flight: in_flight?,
        http2: http2?.unwrap_or_default(),
        auth: auth?,
        rate: rate?,
    })
}

fn read_service(section: &mut Section<'_>) -> Result<Name, Invalid> {
    match section.read("service", from_str::<Name>)? {
        Some(service) => Ok(service),
        None => Err(section.error("service", "is missing: name the service that answers")),
    }
}

fn read_prefix(section: &mut Section<'_>) -> Result<Prefix, Invalid> {
    let strip = section.read("strip", boolean);
    let rewrite = section.read("rewrite", from_str::<PathPrefix>);
    match (strip?, rewrite?) {
        (Some(false), Some(_)) => {
            let message =
                "takes the place of the prefix, which strip = false keeps: leave one away";
            Err(section.error("rewrite", message))
        }
        (_, Some(rewrite)) => Ok(Prefix::Replaced(rewrite)),
        (Some(true), None) => Ok(Prefix::Stripped),
        (Some(false) | None, None) => Ok(Prefix::Kept),
    }
}

/// A method that a route can pass on.
fn served_method(value: Value<'_>) -> Result<Method, String> {
    let method = method(value)?;
    if is_never_served(&method) {
        let reason =
            "must be another method: the gateway passes no CONNECT, PRI, TRACE or TRACK on";
        return Err(invalid(method.as_str(), &reason));
    }
    Ok(method)
}

fn read_path_features(section: &mut Section<'_>) -> Result<PathFeatures, Invalid> {
    let encoded_slashes = section.read("encoded_slashes", boolean);
    let empty_segments = section.read("empty_segments", boolean);
    Ok(PathFeatures {
        encoded_slashes: encoded_slashes?.unwrap_or_default(),
        empty_segments: empty_segments?.unwrap_or_default(),
    })
}

fn read_filter(section: &mut Section<'_>) -> Result<Filter, Invalid> {
    let version = section.read("version", string);
    let versions = section.nonempty_list("versions", string);
    let zones = section.nonempty_list("zones", string);
    let metadata = section.string_map("metadata");
    let versions = match (version?, versions?) {
        (Some(_), Some(_)) => {
            return Err(section.error("version", "is given beside versions: leave one away"));
        }
        (Some(version), None) => vec![version],
        (None, versions) => versions.unwrap_or_default(),
    };
    let (zones, metadata) = (zones?.unwrap_or_default(), metadata?.unwrap_or_default());
    Ok(Filter { zones, versions, metadata })
}

fn read_balance(section: &mut Section<'_>) -> Result<(Policy, Option<KeySource>), Invalid> {
    let policies = [
        ("peak-ewma", Policy::PeakEwma),
        ("least-request", Policy::LeastRequest),
        ("random", Policy::Random),
        ("round-robin", Policy::RoundRobin),
        ("rendezvous", Policy::Rendezvous),
    ];
    let policy = section.read("policy", |value| one_of(value, &policies));
    let key = section.read("key", from_str::<KeyText>);
    match (policy?.unwrap_or_default(), key?) {
        (Policy::Rendezvous, Some(KeyText(key))) => Ok((Policy::Rendezvous, Some(key))),
        (Policy::Rendezvous, None) => {
            let message = "is missing: rendezvous needs header:NAME, or client";
            Err(section.error("key", message))
        }
        (_, Some(_)) => Err(section.error("key", "is of no use but with policy = \"rendezvous\"")),
        (policy, None) => Ok((policy, None)),
    }
}

/// A key as the file has it.
struct KeyText(KeySource);

impl FromStr for KeyText {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let header = |name: &str| name.parse::<HeaderName>().ok().map(KeySource::Header);
        match text.strip_prefix("header:") {
            Some(name) => {
                header(name).map(Self).ok_or("must have the name of a header after header:")
            }
            None if text == "client" => Ok(Self(KeySource::Client)),
            None => Err("must be header:NAME, or client"),
        }
    }
}

/// Whether who a client is has to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    None,
    Optional,
    Required,
}

fn read_access(section: &mut Section<'_>, told: bool) -> Result<Access, Invalid> {
    let levels =
        [("none", Level::None), ("optional", Level::Optional), ("required", Level::Required)];
    let level = section.read("auth", |value| one_of(value, &levels));
    let scopes = section.nonempty_list("scopes", from_str::<Scope>);
    let (level, scopes) = (level?, scopes?);
    // Where there are scopes and no level, they are what asks for a client that is known.
    let asking = if level.is_some() { "auth" } else { "scopes" };
    let access = match (level, scopes) {
        (None | Some(Level::None), None) => return Ok(Access::Open),
        (Some(Level::Optional), None) => Access::Optional,
        (Some(Level::Required), None) => Access::Required { scopes: Vec::new() },
        (None | Some(Level::Required), Some(scopes)) => {
            Access::Required { scopes: scopes.into_iter().map(|Scope(scope)| scope).collect() }
        }
        (Some(Level::None | Level::Optional), Some(_)) => {
            return Err(
                section.error("scopes", "must come with auth = \"required\", or without auth")
            );
        }
    };
    if !told {
        let message = "needs the table [auth], which says how clients tell who they are";
        return Err(section.error(asking, message));
    }
    Ok(access)
}

/// A scope as tokens have it (RFC 6749, section 3.3).
struct Scope(String);

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if !text.is_empty() && text.bytes().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be one scope, without blanks and quotes")
        }
    }
}

fn read_rate(section: &mut Section<'_>) -> Result<Rate, Invalid> {
    let per_second = section.read("per_second", count);
    let burst = section.read("burst", count);
    let Some(per_second) = per_second? else {
        return Err(section.error("per_second", "is missing: say how many requests a second"));
    };
    Ok(Rate { per_second, burst: burst?.unwrap_or(per_second) })
}

/// No two routes have the same name.
fn check_names(file: &mut Section<'_>, drafts: &[Draft]) -> Result<(), Invalid> {
    let mut outcome = Ok(());
    let mut named: BTreeMap<&Name, &Draft> = BTreeMap::new();
    for draft in drafts {
        let Some(name) = &draft.name else { continue };
        match named.entry(name) {
            Entry::Vacant(entry) => drop(entry.insert(draft)),
            Entry::Occupied(first) => {
                let first = first.get();
                let message =
                    format!("'{name}' is the name of {} (line {}), too", first.path, first.line);
                let path = format!("{}.name", draft.path);
                outcome = Err(file.error_at(draft.offset, path, message));
            }
        }
    }
    outcome
}

/// No two routes are for the same requests.
fn check_requests(file: &mut Section<'_>, drafts: &[Draft]) -> Result<(), Invalid> {
    let mut outcome = Ok(());
    let mut places: BTreeMap<_, Vec<(&Methods, &Draft)>> = BTreeMap::new();
    for draft in drafts {
        let Some(Requests { host, path, methods }) = &draft.requests else { continue };
        let place = places.entry((host, path)).or_default();
        if let Some((_, first)) = place.iter().find(|(taken, _)| taken.overlap(methods)) {
            let message = format!(
                "takes requests for {path} on {host} that {} takes, too: each needs its own methods",
                first.title(),
            );
            outcome = Err(file.error_at(draft.offset, draft.path.clone(), message));
        }
        place.push((methods, draft));
    }
    outcome
}

impl Draft {
    /// What it is called where two are told apart.
    fn title(&self) -> String {
        let name = self.name.as_ref().or_else(|| self.route.as_ref().ok().map(Route::name));
        let name = name.map_or_else(String::new, |name| format!("'{name}', "));
        format!("{} ({name}line {})", self.path, self.line)
    }
}
