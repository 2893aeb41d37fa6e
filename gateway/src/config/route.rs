//! Reads `[[routes]]`: each route, then the conflicts between two of them.

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

/// The greatest number of retries of a route.
const RETRIES_MAX: u32 = 10;

/// The parts of the file that routes depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteDefaults {
    /// The timeout of routes without one.
    pub(super) timeout: Duration,
    /// Set if the file has `[auth]`.
    pub(super) has_auth: bool,
}

/// A route, as far as it is valid.
#[derive(Debug)]
struct RouteDraft {
    path: String,
    offset: usize,
    line: usize,
    name: Option<Name>,
    matched: Option<RequestMatch>,
    route: Result<Route, Invalid>,
}

/// The requests that a route matches.
#[derive(Clone, Debug)]
struct RequestMatch {
    host: HostPattern,
    path: PathPrefix,
    methods: Methods,
}

/// Reads `[[routes]]`.
pub(super) fn read_routes(
    file: &mut Section<'_>,
    defaults: RouteDefaults,
) -> Result<Vec<Route>, Invalid> {
    let drafts = file.tables("routes", |section| read_draft(section, defaults))?;
    let outcome = check_names(file, &drafts).and(check_matches(file, &drafts));
    let routes: Result<_, _> = drafts.into_iter().map(|draft| draft.route).collect();
    outcome.and(routes)
}

fn read_draft(section: &mut Section<'_>, defaults: RouteDefaults) -> RouteDraft {
    let matched = read_match(section);
    let name = section.read("name", from_str::<Name>);
    RouteDraft {
        path: section.path().to_owned(),
        offset: section.offset(),
        line: section.line(section.offset()),
        name: name.clone().ok().flatten(),
        matched: matched.clone().ok(),
        route: read_route(section, matched, name, defaults),
    }
}

fn read_match(section: &mut Section<'_>) -> Result<RequestMatch, Invalid> {
    let host = section.read("host", from_str::<HostPattern>);
    let path = section.read("path", from_str::<PathPrefix>);
    let methods = section.nonempty_list("methods", served_method);
    Ok(RequestMatch {
        host: host?.unwrap_or_default(),
        path: path?.unwrap_or_default(),
        methods: methods?.map_or(Methods::All, Methods::These),
    })
}

/// Reads all keys before it returns the first error, so that all are recorded.
fn read_route(
    section: &mut Section<'_>,
    matched: Result<RequestMatch, Invalid>,
    given_name: Result<Option<Name>, Invalid>,
    defaults: RouteDefaults,
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
    let auth = read_access(section, defaults);
    let rate = section.table("rate", read_rate);
    let RequestMatch { host, path, methods } = matched?;
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
        timeout: timeout?.unwrap_or(defaults.timeout),
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
        None => Err(section.error("service", "is missing: set the service of the instances")),
    }
}

fn read_prefix(section: &mut Section<'_>) -> Result<Prefix, Invalid> {
    let strip = section.read("strip", boolean);
    let rewrite = section.read("rewrite", from_str::<PathPrefix>);
    match (strip?, rewrite?) {
        (Some(false), Some(_)) => {
            let message = "replaces the prefix, which strip = false keeps: omit one of them";
            Err(section.error("rewrite", message))
        }
        (_, Some(rewrite)) => Ok(Prefix::Replaced(rewrite)),
        (Some(true), None) => Ok(Prefix::Stripped),
        (Some(false) | None, None) => Ok(Prefix::Kept),
    }
}

/// Reads a method that the gateway forwards.
fn served_method(value: Value<'_>) -> Result<Method, String> {
    let method = method(value)?;
    if is_never_served(&method) {
        let reason =
            "must be another method: the gateway never forwards CONNECT, PRI, TRACE and TRACK";
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
            return Err(section.error("version", "is given beside versions: omit one of them"));
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
        (_, Some(_)) => {
            Err(section.error("key", "has an effect only with policy = \"rendezvous\""))
        }
        (policy, None) => Ok((policy, None)),
    }
}

/// The text of a key.
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

/// The requirement on a caller's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthLevel {
    None,
    Optional,
    Required,
}

fn read_access(section: &mut Section<'_>, defaults: RouteDefaults) -> Result<Access, Invalid> {
    let levels = [
        ("none", AuthLevel::None),
        ("optional", AuthLevel::Optional),
        ("required", AuthLevel::Required),
    ];
    let level = section.read("auth", |value| one_of(value, &levels));
    let scopes = section.nonempty_list("scopes", from_str::<ScopeText>);
    let (level, scopes) = (level?, scopes?);
    // Scopes without a level require an identity, too.
    let requiring = if level.is_some() { "auth" } else { "scopes" };
    let access = match (level, scopes) {
        (None | Some(AuthLevel::None), None) => return Ok(Access::Open),
        (Some(AuthLevel::Optional), None) => Access::Optional,
        (Some(AuthLevel::Required), None) => Access::Required { scopes: Vec::new() },
        (None | Some(AuthLevel::Required), Some(scopes)) => {
            Access::Required { scopes: scopes.into_iter().map(|ScopeText(scope)| scope).collect() }
        }
        (Some(AuthLevel::None | AuthLevel::Optional), Some(_)) => {
            return Err(
                section.error("scopes", "must come with auth = \"required\", or without auth")
            );
        }
    };
    if !defaults.has_auth {
        let message = "needs the table [auth], which configures how callers are identified";
        return Err(section.error(requiring, message));
    }
    Ok(access)
}

/// The text of a scope (RFC 6749, section 3.3).
struct ScopeText(String);

impl FromStr for ScopeText {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if !text.is_empty() && text.bytes().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be one scope, without spaces, quotes and backslashes")
        }
    }
}

fn read_rate(section: &mut Section<'_>) -> Result<Rate, Invalid> {
    let per_second = section.read("per_second", count);
    let burst = section.read("burst", count);
    let Some(per_second) = per_second? else {
        return Err(section.error("per_second", "is missing: set the requests per second"));
    };
    Ok(Rate { per_second, burst: burst?.unwrap_or(per_second) })
}

/// Checks that no two routes have the same name.
fn check_names(file: &mut Section<'_>, drafts: &[RouteDraft]) -> Result<(), Invalid> {
    let mut outcome = Ok(());
    let mut named: BTreeMap<&Name, &RouteDraft> = BTreeMap::new();
    for draft in drafts {
        let Some(name) = &draft.name else { continue };
        match named.entry(name) {
            Entry::Vacant(entry) => drop(entry.insert(draft)),
            Entry::Occupied(first) => {
                let first = first.get();
                let message =
                    format!("'{name}' is the name of {} (line {})", first.path, first.line);
                let path = format!("{}.name", draft.path);
                outcome = Err(file.error_at(draft.offset, path, message));
            }
        }
    }
    outcome
}

/// Checks that no two routes match the same requests.
fn check_matches(file: &mut Section<'_>, drafts: &[RouteDraft]) -> Result<(), Invalid> {
    let mut outcome = Ok(());
    let mut places: BTreeMap<_, Vec<(&Methods, &RouteDraft)>> = BTreeMap::new();
    for draft in drafts {
        let Some(RequestMatch { host, path, methods }) = &draft.matched else { continue };
        let place = places.entry((host, path)).or_default();
        if let Some((_, first)) = place.iter().find(|(taken, _)| taken.overlap(methods)) {
            let message = format!(
                "has requests for {path} on {host} that {} has, too: each needs its own methods",
                first.title(),
            );
            outcome = Err(file.error_at(draft.offset, draft.path.clone(), message));
        }
        place.push((methods, draft));
    }
    outcome
}

impl RouteDraft {
    /// Names the route in an error about two routes.
    fn title(&self) -> String {
        let name = self.name.as_ref().or_else(|| self.route.as_ref().ok().map(Route::name));
        let name = name.map_or_else(String::new, |name| format!("'{name}', "));
        format!("{} ({name}line {})", self.path, self.line)
    }
}
