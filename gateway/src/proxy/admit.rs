//! The admission of a request: its route, the identity and the limits of its client, and its head as
//! the instance gets it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, request::Parts, uri::PathAndQuery};
use waypost_auth::{Identity, Unauthorized};
use waypost_client::{CallKey, RawTarget};

use super::{context::Context, problems};
use crate::{
    clock,
    guard::Unusual,
    headers::{
        forwarded::{Arrival, Origin, Scheme, host_of},
        hop_by_hop::{self, Passage},
    },
    limits::rate::ClientKey,
    observe::access_log::Outcome,
    problem::Problem,
    routes::{Access, Found, KeySource, Route, unusual},
    server::EncodedPositions,
    settings::Settings,
    upstream::{
        channels::Way,
        services::{Standing, Upstream},
    },
};

static TIMEOUT_MS: HeaderName = HeaderName::from_static("x-waypost-timeout-ms");

/// A request that may be forwarded, apart from its head and body.
pub(super) struct Admitted {
    pub(super) route: Way,
    pub(super) upstream: Arc<Upstream>,
    /// The target that the instance gets.
    pub(super) path: PathAndQuery,
    /// The same, where the caller did not encode what has to be encoded.
    pub(super) raw_target: Option<RawTarget>,
    /// The time until the head of the response.
    pub(super) timeout: Duration,
    pub(super) passage: Passage,
    pub(super) key: Option<CallKey>,
}

/// Finds the route of a request, checks that its client may use it, and makes `head` what the instance
/// gets. Notes in `outcome` where the request goes.
pub(super) async fn admit(
    context: &Context<'_>,
    head: &mut Parts,
    unusual: Unusual,
    outcome: &mut Outcome,
) -> Result<Admitted, Problem> {
    let Context { gateway, settings, peer, .. } = *context;
    let host = host_of(head);
    let arrival = Arrival { peer: peer.ip(), scheme: Scheme::Http, host };
    let origin = Origin::read(&head.headers, arrival, &gateway.trusted);
    let (mut route, mut path) = find(settings, host, head, unusual)?;
    if context.is_grpc && matches!(route, Way::Implicit(_)) {
        // The path of a call names what it calls, whole.
        path = head.uri.path().to_owned();
        route = grpc_route(context, route, host).await;
    }
    let upstream = gateway.upstreams.get(route.service.as_str());
    outcome.route = Some(route.name().clone());
    outcome.service = Some(route.service.clone());
    let of_service = |problem: Problem| problem.of(route.service.as_str());
    let identity = identify(settings, &route.auth, &head.headers).map_err(of_service)?;
    check_rate(settings, &route, identity.as_ref(), &origin).map_err(of_service)?;
    let standing = gateway.upstreams.standing(&upstream).await;
    require_known(standing, &route).map_err(of_service)?;
    let key = key(&route.key, &head.headers, identity.as_ref(), &origin);
    let timeout = timeout(&route, &head.headers);
    let passage = hop_by_hop::strip_request(&mut head.headers, head.version);
    gateway.pseudonym.pass(&mut head.headers, head.version).map_err(problems::refused)?;
    origin.write(&mut head.headers, stripped_prefix(&route, context.is_grpc));
    match &settings.config.auth {
        Some(auth) => auth.pass_on(&mut head.headers, identity.as_ref()),
        None => waypost_auth::remove_forged(&mut head.headers),
    }
    let path = request_target(path, head.uri.query())?;
    let raw_target = raw_target(head, &path);
    Ok(Admitted { route, upstream, path, raw_target, timeout, passage, key })
}

/// Returns the route of a request, and the path that its instance gets.
fn find(
    settings: &Settings,
    host: Option<&str>,
    head: &Parts,
    unusual: Unusual,
) -> Result<(Way, String), Problem> {
    let (routes, path) = (&settings.config.routes, head.uri.path());
    let found = routes.find(host, path, &head.method);
    if !unusual.is_nothing() {
        unusual::check(routes, host, head, unusual, &found).map_err(problems::refused)?;
    }
    match found {
        Found::Route { route, path } => Ok((Way::Written(Arc::clone(route)), path.into_owned())),
        Found::Implicit { service, timeout, path } => {
            Ok((settings.lines.implicit(service, timeout), path.to_owned()))
        }
        Found::MethodNotAllowed { allow } => Err(problems::method_not_allowed(allow)),
        Found::None => Err(problems::no_route()),
    }
}

/// Returns the implicit route of a gRPC call: to the service that its path names, or, where there is none,
/// to the one that its host names.
async fn grpc_route(context: &Context<'_>, route: Way, host: Option<&str>) -> Way {
    let Context { gateway, settings, .. } = context;
    let by_path = gateway.upstreams.get(route.service.as_str());
    if gateway.upstreams.standing(&by_path).await == Standing::Known {
        return route;
    }
    let name = host.and_then(|host| host.split(':').next()?.parse().ok());
    match name {
        Some(name) => settings.lines.implicit(name, route.timeout),
        None => route,
    }
}

/// Returns the identity of the client, where the route takes one.
fn identify(
    settings: &Settings,
    access: &Access,
    headers: &HeaderMap,
) -> Result<Option<Identity>, Problem> {
    let (Some(auth), Access::Optional | Access::Required { .. }) = (&settings.config.auth, access)
    else {
        return Ok(None);
    };
    let identity = auth.identify(headers, clock::wall_now()).map_err(problems::unauthorized)?;
    let Access::Required { scopes } = access else { return Ok(identity) };
    let identity = identity.ok_or_else(|| problems::unauthorized(Unauthorized::NothingGiven))?;
    match identity.missing_scope(scopes) {
        None => Ok(Some(identity)),
        Some(missing) => Err(problems::missing_scope(&missing)),
    }
}

fn check_rate(
    settings: &Settings,
    route: &Way,
    identity: Option<&Identity>,
    origin: &Origin,
) -> Result<(), Problem> {
    if route.rate.is_none() {
        return Ok(());
    }
    let client = ClientKey::new(identity, origin.client());
    settings.rates.check(route.name().as_str(), client).map_err(problems::rate_limited)
}

/// Refuses a request for a service that the registry does not have.
fn require_known(standing: Standing, route: &Way) -> Result<(), Problem> {
    match (standing, route) {
        (Standing::Known, _) => Ok(()),
        // The operator configured the service: it has not registered yet.
        (Standing::Unknown, Way::Written(_)) => {
            Err(problems::no_instance("the service has no instances"))
        }
        (Standing::Unknown, Way::Implicit(_)) => Err(problems::unknown_service()),
        (Standing::Untold, _) => {
            Err(problems::no_instance("the registry has not told the service's instances yet"))
        }
    }
}

/// Returns the key of a call: calls with the same key go to the same instance.
fn key(
    source: &Option<KeySource>,
    headers: &HeaderMap,
    identity: Option<&Identity>,
    origin: &Origin,
) -> Option<CallKey> {
    match source.as_ref()? {
        KeySource::Header(name) => headers.get(name).map(CallKey::new),
        KeySource::Client => Some(match identity {
            Some(identity) => CallKey::new(&identity.subject),
            None => CallKey::new(origin.client().to_string()),
        }),
    }
}

/// Returns the time until the head of the response, from the end of the request's body: that of the route,
/// or less where the caller sets less.
fn timeout(route: &Route, headers: &HeaderMap) -> Duration {
    let wanted = headers.get(&TIMEOUT_MS).and_then(|ms| ms.to_str().ok()?.parse().ok());
    wanted.map_or(route.timeout, |ms| route.timeout.min(Duration::from_millis(ms)))
}

/// Returns the prefix of the path that the instance does not get, in two parts.
fn stripped_prefix(route: &Way, is_grpc: bool) -> [&str; 2] {
    match route {
        Way::Written(route) => [route.stripped_prefix(), ""],
        Way::Implicit(_) if is_grpc => ["", ""],
        Way::Implicit(route) => ["/", route.service.as_str()],
    }
}

fn request_target(path: String, query: Option<&str>) -> Result<PathAndQuery, Problem> {
    let target = match query {
        None => path.try_into(),
        Some(query) => format!("{path}?{query}").try_into(),
    };
    target.map_err(|_| problems::bad_target())
}

/// Returns the target that the instance gets, with the bytes that were encoded for the gateway alone as they
/// came.
fn raw_target(head: &mut Parts, path: &PathAndQuery) -> Option<RawTarget> {
    let encoded_at = head.extensions.remove::<EncodedPositions>()?;
    let length = head.uri.path_and_query()?.as_str().len();
    RawTarget::new(&encoded_at.decode(path.as_str(), length)?)
}
