//! The admission of a request: its route, the identity and the limits of its client, and its head
//! as the instance gets it.

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
        hop_by_hop::{self, Upgrade},
    },
    limits::ClientKey,
    observe::RequestOutcome,
    problem::Problem,
    routes::{Access, KeySource, Route, RouteMatch, unusual},
    server::EncodedPositions,
    settings::Settings,
    upstream::{
        channels::MatchedRoute,
        services::{ServiceState, Upstream},
    },
};

static TIMEOUT_MS: HeaderName = HeaderName::from_static("x-waypost-timeout-ms");

/// A request that may be forwarded, apart from its head and body.
pub(super) struct Admitted {
    pub(super) route: MatchedRoute,
    pub(super) upstream: Arc<Upstream>,
    /// The target that the instance gets.
    pub(super) path: PathAndQuery,
    /// The target as the caller sent it, where it had to be encoded for the gateway.
    pub(super) raw_target: Option<RawTarget>,
    /// The time until the head of the response.
    pub(super) timeout: Duration,
    pub(super) upgrade: Upgrade,
    pub(super) key: Option<CallKey>,
}

/// Finds the route of a request, checks that its client may use it, and changes `head` to the one
/// that the instance gets. Notes the route in `outcome`.
pub(super) async fn admit(
    context: &Context<'_>,
    head: &mut Parts,
    unusual: Unusual,
    outcome: &mut RequestOutcome,
) -> Result<Admitted, Problem> {
    let Context { gateway, settings, peer, .. } = *context;
    let host = host_of(head);
    let arrival = Arrival { peer: peer.ip(), scheme: Scheme::Http, host };
    let origin = Origin::read(&head.headers, arrival, &gateway.trusted);
    let (mut route, mut path) = find_route(settings, host, head, unusual)?;
    if context.is_grpc && matches!(route, MatchedRoute::Implicit(_)) {
        // The path of a gRPC call is the name of its method: it stays whole.
        path = head.uri.path().to_owned();
        route = grpc_route(context, route, host).await;
    }
    let upstream = gateway.upstreams.get(route.service.as_str());
    outcome.route = Some(route.name().clone());
    outcome.service = Some(route.service.clone());
    let of_service = |problem: Problem| problem.for_service(route.service.as_str());
    let identity = identify(settings, &route.auth, &head.headers).map_err(of_service)?;
    check_rate(settings, &route, identity.as_ref(), &origin).map_err(of_service)?;
    let state = gateway.upstreams.state(&upstream).await;
    require_known(state, &route).map_err(of_service)?;
    let key = call_key(&route.key, &head.headers, identity.as_ref(), &origin);
    let timeout = timeout(&route, &head.headers);
    let upgrade = hop_by_hop::strip_request(&mut head.headers, head.version);
    gateway.pseudonym.append(&mut head.headers, head.version).map_err(problems::refused)?;
    origin.write(&mut head.headers, stripped_prefix(context, &route));
    match &settings.config.auth {
        Some(auth) => auth.replace_credentials(&mut head.headers, identity.as_ref()),
        None => waypost_auth::remove_forged(&mut head.headers),
    }
    let path = request_target(path, head.uri.query())?;
    let raw_target = raw_target(head, &path);
    Ok(Admitted { route, upstream, path, raw_target, timeout, upgrade, key })
}

/// Returns the route of a request, and the path that its instance gets.
fn find_route(
    settings: &Settings,
    host: Option<&str>,
    head: &Parts,
    unusual: Unusual,
) -> Result<(MatchedRoute, String), Problem> {
    let (routes, path) = (&settings.config.routes, head.uri.path());
    let found = routes.find(host, path, &head.method);
    if !unusual.is_none() {
        unusual::check(routes, host, head, unusual, &found).map_err(problems::refused)?;
    }
    match found {
        RouteMatch::Route { route, path } => {
            Ok((MatchedRoute::Configured(Arc::clone(route)), path.into_owned()))
        }
        RouteMatch::Implicit { service, timeout, path } => {
            Ok((settings.channels.implicit_route(service, timeout), path.to_owned()))
        }
        RouteMatch::MethodNotAllowed { allow } => Err(problems::method_not_allowed(allow)),
        RouteMatch::None => Err(problems::no_route()),
    }
}

/// Returns the implicit route of a gRPC call: to the service that its path names, or, where there
/// is none, to the one that its host names.
async fn grpc_route(
    context: &Context<'_>,
    route: MatchedRoute,
    host: Option<&str>,
) -> MatchedRoute {
    let Context { gateway, settings, .. } = context;
    let by_path = gateway.upstreams.get(route.service.as_str());
    if gateway.upstreams.state(&by_path).await == ServiceState::Known {
        return route;
    }
    let name = host.and_then(|host| host.split(':').next()?.parse().ok());
    match name {
        Some(name) => settings.channels.implicit_route(name, route.timeout),
        None => route,
    }
}

/// Returns the identity of the client, where the route asks for one.
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
    let identity = identity.ok_or_else(|| problems::unauthorized(Unauthorized::NoCredentials))?;
    match identity.missing_scope(scopes) {
        None => Ok(Some(identity)),
        Some(missing) => Err(problems::missing_scope(&missing)),
    }
}

fn check_rate(
    settings: &Settings,
    route: &MatchedRoute,
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
fn require_known(state: ServiceState, route: &MatchedRoute) -> Result<(), Problem> {
    match (state, route) {
        (ServiceState::Known, _) => Ok(()),
        // The operator configured the service: it has not registered yet.
        (ServiceState::Unknown, MatchedRoute::Configured(_)) => {
            Err(problems::no_instance("the service has no instances"))
        }
        (ServiceState::Unknown, MatchedRoute::Implicit(_)) => Err(problems::unknown_service()),
        (ServiceState::Loading, _) => Err(problems::no_instance(
            "the service's instances are still loading from the registry",
        )),
    }
}

/// Returns the key of a call: calls with the same key go to the same instance.
fn call_key(
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

/// Returns the time from the end of the request's body to the head of the response: that of the
/// route, or less where the caller sets less.
fn timeout(route: &Route, headers: &HeaderMap) -> Duration {
    let requested = headers.get(&TIMEOUT_MS).and_then(|ms| ms.to_str().ok()?.parse().ok());
    requested.map_or(route.timeout, |ms| route.timeout.min(Duration::from_millis(ms)))
}

/// Returns the prefix of the path that the instance does not get, in two parts.
fn stripped_prefix<'a>(context: &Context<'_>, route: &'a MatchedRoute) -> [&'a str; 2] {
    match route {
        MatchedRoute::Configured(route) => [route.stripped_prefix(), ""],
        MatchedRoute::Implicit(_) if context.is_grpc => ["", ""],
        MatchedRoute::Implicit(route) => ["/", route.service.as_str()],
    }
}

fn request_target(path: String, query: Option<&str>) -> Result<PathAndQuery, Problem> {
    let target = match query {
        None => path.try_into(),
        Some(query) => format!("{path}?{query}").try_into(),
    };
    target.map_err(|_| problems::bad_target())
}

/// Returns the target for the instance as the caller sent it, where bytes of it were encoded for
/// the gateway.
fn raw_target(head: &mut Parts, path: &PathAndQuery) -> Option<RawTarget> {
    let encoded_at = head.extensions.remove::<EncodedPositions>()?;
    let length = head.uri.path_and_query()?.as_str().len();
    RawTarget::new(&encoded_at.decode(path.as_str(), length)?)
}
