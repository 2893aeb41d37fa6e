//! One request's way through the gateway: what it must be, where it goes, what comes back. It must never
//! let anything through to an instance that it has not looked at.

pub(crate) mod rejection;
mod request_body;
mod response_body;
mod status_trailers;
mod tunnel;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header, request::Parts, uri::PathAndQuery,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tonic::body::Body;
use tower::Service as _;
use waypost_auth::{Identity, Unauthorized};
use waypost_client::{
    CallKey, CallTimeout, FailureKind, HttpChannelError, NoInstance, RawTarget, ServedBy,
};

use self::{
    request_body::{Bounds, Fault},
    response_body::Trimmed,
    status_trailers::StatusTrailers,
};
use crate::{
    clock,
    gateway::Gateway,
    guard::{self, Refused, Unusual},
    headers::{
        forwarded::{Arrival, Origin, Scheme, host_of},
        hop_by_hop::{self, Passage},
    },
    limits::rate::ClientKey,
    observe::{
        access_log::{Entry, Outcome},
        correlation::{Correlation, REQUEST_ID},
    },
    problem::Problem,
    routes::{Access, Found, KeySource, Route, unusual},
    server::EncodedAt,
    settings::Settings,
    upstream::{
        channels::{Repeat, Way},
        services::{Standing, Upstream},
    },
};

static TIMEOUT_MS: HeaderName = HeaderName::from_static("x-waypost-timeout-ms");

/// A request, as it came in.
struct Incomer {
    peer: SocketAddr,
    request: Request<Incoming>,
    /// Whether it is fit to be looked at.
    checked: Result<Unusual, Refused>,
}

/// Answers a request, and tells of it.
pub(crate) async fn answer(
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let settings = gateway.settings();
    let (mut head, body) = request.into_parts();
    if head.version == Version::HTTP_2 {
        // RFC 9113, 8.2.3: the crumbs of a cookie are one field, and count as one.
        hop_by_hop::join_cookies(&mut head.headers);
    }
    // As it came: what is added to it is none of its caller's doing.
    let checked = guard::check(&head);
    let correlation = Correlation::of(&mut head.headers);
    let request = Request::from_parts(head, body);
    let untold = gateway.begin(Entry::begin(&request, peer, &correlation));
    let incomer = Incomer { peer, request, checked };
    let (mut answer, outcome) = if settings.dresses() {
        // Boxed: it has room for what most requests do without.
        Box::pin(dressed(&gateway, &settings, &correlation, incomer)).await
    } else {
        respond(&gateway, &settings, &correlation, incomer).await
    };
    answer.headers_mut().insert(REQUEST_ID.clone(), correlation.request_id().clone());
    Ok(untold.tell(outcome, answer))
}

/// An answer that browsers of other origins may see, or whose coding is the caller's choice.
async fn dressed(
    gateway: &Gateway,
    settings: &Settings,
    correlation: &Correlation,
    incomer: Incomer,
) -> (Response<Body>, Outcome) {
    let Incomer { peer, request, checked } = incomer;
    let answered = tower::service_fn(|request| async move {
        let incomer = Incomer { peer, request, checked };
        let (mut answer, outcome) = respond(gateway, settings, correlation, incomer).await;
        answer.extensions_mut().insert(outcome);
        Ok::<_, Infallible>(answer)
    });
    let Ok(mut answer) = settings.dress(answered, request).await;
    let outcome = answer.extensions_mut().remove::<Outcome>().unwrap_or_default();
    (answer, outcome)
}

async fn respond(
    gateway: &Gateway,
    settings: &Settings,
    correlation: &Correlation,
    incomer: Incomer,
) -> (Response<Body>, Outcome) {
    let Incomer { peer, request, checked } = incomer;
    let is_grpc = is_grpc(request.version(), request.headers());
    let answered = match checked {
        Ok(unusual) => pass(gateway, settings, peer, request, unusual).await,
        Err(reason) => Err((refused(reason).last(request.version()), Outcome::default())),
    };
    answered.unwrap_or_else(|(problem, outcome)| {
        let outcome = outcome.with_problem(&problem);
        let id = correlation.request_id_text();
        let answer = if is_grpc { problem.answer_grpc(id) } else { problem.answer(id) };
        (answer, outcome)
    })
}

/// What a request came to, and who had to do with it.
type Passed = Result<(Response<Body>, Outcome), (Problem, Outcome)>;

async fn pass(
    gateway: &Gateway,
    settings: &Settings,
    peer: SocketAddr,
    mut request: Request<Incoming>,
    unusual: Unusual,
) -> Passed {
    let mut outcome = Outcome::default();
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let (version, has_body) = (head.version, !http_body::Body::is_end_stream(&body));
    if head.uri.path() == "*" {
        return Ok((of_the_whole(), outcome));
    }
    let admitted = admit(gateway, settings, peer, &mut head, unusual, &mut outcome).await;
    let answered = match admitted {
        Ok(admitted) => {
            forward(gateway, settings, admitted, head, body, upgrade, &mut outcome).await
        }
        Err(problem) => Err(problem),
    };
    match answered {
        Ok(answer) => Ok((answer, outcome)),
        Err(problem) => Err((if has_body { problem.last(version) } else { problem }, outcome)),
    }
}

/// What a caller is told who asks what the gateway can do, of no path in particular.
fn of_the_whole() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(header::ALLOW, guard::ALLOW);
    answer
}

/// What is known of a request that may pass.
struct Admitted {
    route: Way,
    upstream: Arc<Upstream>,
    /// What the instance is asked.
    path: PathAndQuery,
    /// The same, where the caller did not encode what has to be encoded.
    raw_target: Option<RawTarget>,
    /// Until the head of the answer is there.
    timeout: Duration,
    passage: Passage,
    is_grpc: bool,
    key: Option<CallKey>,
}

/// Looks at the head of a request, finds its route, and makes the head what the instance is to see.
async fn admit(
    gateway: &Gateway,
    settings: &Settings,
    peer: SocketAddr,
    head: &mut Parts,
    unusual: Unusual,
    outcome: &mut Outcome,
) -> Result<Admitted, Problem> {
    let host = host_of(head);
    let arrival = Arrival { peer: peer.ip(), scheme: Scheme::Http, host };
    let origin = Origin::read(&head.headers, arrival, &gateway.trusted);
    let is_grpc = is_grpc(head.version, &head.headers);
    let (mut route, mut path) = find(settings, host, head, unusual)?;
    if is_grpc && matches!(route, Way::Implicit(_)) {
        // The path of a call names what it calls, whole.
        path = head.uri.path().to_owned();
        route = of_call(gateway, settings, route, host).await;
    }
    let upstream = gateway.upstreams.get(route.service.as_str());
    outcome.route = Some(route.name().clone());
    outcome.service = Some(route.service.clone());
    let identity = identify(settings, &route.auth, &head.headers);
    let identity = identity.map_err(|problem| problem.of(route.service.as_str()))?;
    limit(settings, &route, identity.as_ref(), &origin)?;
    introduced(gateway.upstreams.standing(&upstream).await, route.service.as_str(), &route)?;
    let key = key(&route.key, &head.headers, identity.as_ref(), &origin);
    let timeout = timeout(&route, &head.headers);
    let passage = hop_by_hop::strip_request(&mut head.headers, head.version);
    gateway.pseudonym.pass(&mut head.headers, head.version).map_err(refused)?;
    origin.write(&mut head.headers, stripped(&route, is_grpc));
    match &settings.auth {
        Some(auth) => auth.pass_on(&mut head.headers, identity.as_ref()),
        None => waypost_auth::remove_forged(&mut head.headers),
    }
    let path = asked(path, head.uri.query())?;
    let raw_target = raw_target(head, &path);
    Ok(Admitted { route, upstream, path, raw_target, timeout, passage, is_grpc, key })
}

fn find(
    settings: &Settings,
    host: Option<&str>,
    head: &Parts,
    unusual: Unusual,
) -> Result<(Way, String), Problem> {
    let (routes, path) = (&settings.config.routes, head.uri.path());
    let found = routes.find(host, path, &head.method);
    if !unusual.is_nothing() {
        unusual::check(routes, host, head, unusual, &found).map_err(refused)?;
    }
    match found {
        Found::Route { route, path } => Ok((Way::Written(Arc::clone(route)), path.into_owned())),
        Found::Implicit { service, timeout, path } => {
            Ok((settings.lines.implicit(service, timeout), path.to_owned()))
        }
        Found::MethodNotAllowed { allow } => {
            let detail = "the route takes other methods";
            let problem =
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail);
            Err(problem.with(header::ALLOW, allow.clone()))
        }
        Found::None => {
            Err(Problem::new(StatusCode::NOT_FOUND, "No route", "no route leads from this path"))
        }
    }
}

/// The prefix of the path that the instance does not get, in two parts.
fn stripped(route: &Way, is_grpc: bool) -> [&str; 2] {
    match route {
        Way::Written(route) => [route.stripped_prefix(), ""],
        Way::Implicit(_) if is_grpc => ["", ""],
        Way::Implicit(route) => ["/", route.service.as_str()],
    }
}

/// The way of a call that no route was written for: to the service that its path names, or, where there is
/// none, to the one that its host names.
async fn of_call(gateway: &Gateway, settings: &Settings, route: Way, host: Option<&str>) -> Way {
    let named = gateway.upstreams.get(route.service.as_str());
    if gateway.upstreams.standing(&named).await == Standing::Known {
        return route;
    }
    let name = host.and_then(|host| host.split(':').next()?.parse().ok());
    match name {
        Some(name) => settings.lines.implicit(name, route.timeout),
        None => route,
    }
}

fn identify(
    settings: &Settings,
    access: &Access,
    headers: &HeaderMap,
) -> Result<Option<Identity>, Problem> {
    let (Some(auth), Access::Optional | Access::Required { .. }) = (&settings.auth, access) else {
        return Ok(None);
    };
    let identity = auth.identify(headers, clock::wall_now()).map_err(unauthorized)?;
    let Access::Required { scopes } = access else { return Ok(identity) };
    let identity = identity.ok_or_else(|| unauthorized(Unauthorized::NothingGiven))?;
    match identity.missing_scope(scopes) {
        None => Ok(Some(identity)),
        Some(missing) => {
            let problem = Problem::new(StatusCode::FORBIDDEN, "Not allowed", missing.to_string());
            Err(problem.with(header::WWW_AUTHENTICATE, missing.www_authenticate()))
        }
    }
}

fn unauthorized(reason: Unauthorized) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "Not known", reason.to_string());
    problem.with(header::WWW_AUTHENTICATE, reason.www_authenticate())
}

fn limit(
    settings: &Settings,
    route: &Way,
    identity: Option<&Identity>,
    origin: &Origin,
) -> Result<(), Problem> {
    if route.rate.is_none() {
        return Ok(());
    }
    let client = ClientKey::new(identity, origin.client());
    settings.rates.check(route.name().as_str(), client).map_err(|limited| {
        let detail = "the client has asked too often";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests", detail);
        problem.of(route.service.as_str()).with(header::RETRY_AFTER, limited.retry_after_header())
    })
}

fn introduced(standing: Standing, service: &str, route: &Way) -> Result<(), Problem> {
    match (standing, route) {
        (Standing::Known, _) => Ok(()),
        // Who wrote the route knows of the service: it is not there yet.
        (Standing::Unknown, Way::Written(_)) => {
            Err(nobody(service, "the service has no instances".into()))
        }
        (Standing::Unknown, Way::Implicit(_)) => {
            let title = "No such service";
            Err(Problem::new(StatusCode::NOT_FOUND, title, "no instance was ever seen").of(service))
        }
        (Standing::Untold, _) => {
            Err(nobody(service, "the registry has not told the service's instances yet".into()))
        }
    }
}

fn nobody(service: &str, detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "No instance", detail).of(service).retry_after(1)
}

fn refused(refused: Refused) -> Problem {
    Problem::new(refused.status, "Refused", refused.reason)
}

/// What the calls of a client that belong together have in common.
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

/// Until the head of the answer, from the end of the upload: what the route gives, or less where the caller
/// asks for less.
fn timeout(route: &Route, headers: &HeaderMap) -> Duration {
    let asked = headers.get(&TIMEOUT_MS).and_then(|ms| ms.to_str().ok()?.parse().ok());
    asked.map_or(route.timeout, |ms| route.timeout.min(Duration::from_millis(ms)))
}

fn asked(path: String, query: Option<&str>) -> Result<PathAndQuery, Problem> {
    let bad = |_| Problem::new(StatusCode::BAD_REQUEST, "Refused", "the path can't be passed on");
    match query {
        None => path.try_into().map_err(bad),
        Some(query) => format!("{path}?{query}").try_into().map_err(bad),
    }
}

/// The target that the instance gets, with the bytes that were encoded for the gateway alone as they came.
fn raw_target(head: &mut Parts, path: &PathAndQuery) -> Option<RawTarget> {
    let encoded_at = head.extensions.remove::<EncodedAt>()?;
    let length = head.uri.path_and_query()?.as_str().len();
    RawTarget::new(&encoded_at.decode(path.as_str(), length)?)
}

fn too_long() -> Problem {
    let detail = "the request's body is longer than the gateway takes";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Too long", detail)
}

/// What a caller is told whose request came to nothing by its own body.
fn faulty(fault: Fault) -> Problem {
    match fault {
        Fault::TooLong => too_long(),
        Fault::TooSlow => {
            let detail = "the request's body was silent for too long";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "Too slow", detail)
        }
        Fault::Broken => {
            Problem::new(StatusCode::BAD_REQUEST, "Broken", "the request's body has no end")
        }
    }
}

async fn forward(
    gateway: &Gateway,
    settings: &Settings,
    admitted: Admitted,
    mut head: Parts,
    body: Incoming,
    upgrade: OnUpgrade,
    outcome: &mut Outcome,
) -> Result<Response<Body>, Problem> {
    let Admitted { route, upstream, path, raw_target, timeout, passage, is_grpc, key } = admitted;
    let service = route.service.as_str();
    let bounds = bounds(gateway, settings, is_grpc);
    let length = http_body::Body::size_hint(&body).lower();
    if bounds.bytes_max.is_some_and(|bytes_max| length > bytes_max) {
        return Err(too_long().of(service));
    }
    let (body, mut faults) = request_body::begin(body, bounds);
    if !is_grpc {
        address(&route, &mut head, &body);
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from(path);
    *request.headers_mut() = head.headers;
    if !is_grpc {
        request.extensions_mut().insert(CallTimeout(timeout));
    }
    if let Some(raw_target) = raw_target {
        request.extensions_mut().insert(raw_target);
    }
    if let Some(key) = key {
        request.extensions_mut().insert(key);
    }
    let line = settings.lines.line(&route, &upstream);
    let repeat = repeat(&route, request.method());
    let began = clock::now();
    let answered = async {
        if is_grpc {
            let Ok(answer) = line.grpc(repeat).call(request).await;
            return Ok(answer);
        }
        line.http(repeat).call(request).await
    };
    let answered = tokio::select! {
        biased;
        fault = faults.next() => return Err(faulty(fault).of(service)),
        answered = answered => answered,
    };
    outcome.upstream_time = Some(clock::now() - began);
    if let Some(fault) = faults.last() {
        return Err(faulty(fault).of(service));
    }
    match answered {
        Ok(mut answer) => {
            if let Some(by) = answer.extensions_mut().remove::<ServedBy>() {
                outcome.answered_by(&by);
            }
            if is_grpc {
                answer = answer.map(|body| Body::new(StatusTrailers::new(body)));
            }
            passed_back(gateway, answer, passage, upgrade).map_err(|problem| problem.of(service))
        }
        Err(failed) => {
            outcome.failed(&failed);
            Err(unanswered(&failed, line.service()).of(service))
        }
    }
}

/// A call of gRPC may be a stream that is silent for as long as it likes, and its messages are its own
/// business.
fn bounds(gateway: &Gateway, settings: &Settings, is_grpc: bool) -> Bounds {
    if is_grpc {
        return Bounds::default();
    }
    Bounds { bytes_max: settings.body_max(), silence_max: Some(gateway.body_silence_max) }
}

/// Says whom a request is for, and where its body ends, as the instance's version of HTTP has it.
fn address(route: &Route, head: &mut Parts, body: &Body) {
    if route.http2 {
        head.headers.remove(header::HOST);
        return;
    }
    let host = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        head.headers.insert(header::HOST, host);
    }
    hop_by_hop::frame_for_http1(&mut head.headers, body);
}

fn repeat(route: &Way, method: &Method) -> Repeat {
    if method.is_safe() {
        Repeat::Safe
    } else if route.may_repeat(method) {
        Repeat::Idempotent
    } else {
        Repeat::Never
    }
}

/// What an instance answered, as the caller is to see it.
fn passed_back(
    gateway: &Gateway,
    mut answer: Response<Body>,
    passage: Passage,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, Problem> {
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS && passage != Passage::WebSocket {
        let detail = "the instance switches to a protocol that it was not asked for";
        return Err(Problem::new(StatusCode::BAD_GATEWAY, "No answer", detail));
    }
    hop_by_hop::strip_response(answer.headers_mut(), status, passage);
    *answer.version_mut() = Version::default();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let there = hyper::upgrade::on(&mut answer);
        let (head, body) = answer.into_parts();
        // Its body counts the call as in flight: for as long as the tunnel is there.
        gateway.tasks.spawn("tunnel", tunnel::run(upgrade, there, body, gateway.closing.clone()));
        return Ok(Response::from_parts(head, Body::empty()));
    }
    Ok(answer.map(|body| Body::new(Trimmed(body))))
}

fn unanswered(failed: &HttpChannelError, service: &waypost_client::Service) -> Problem {
    let detail = failed.to_string();
    match failed.kind() {
        FailureKind::TimedOut => Problem::new(StatusCode::GATEWAY_TIMEOUT, "Too late", detail),
        FailureKind::LimitReached => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Busy", detail).retry_after(1)
        }
        FailureKind::Unsent if nobody_is_up(service) => nobody(service.name(), detail),
        FailureKind::Unsent => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Not reached", detail).retry_after(1)
        }
        FailureKind::HeadTooLarge => Problem::new(StatusCode::BAD_GATEWAY, "Bad response", detail),
        _ => Problem::new(StatusCode::BAD_GATEWAY, "No answer", detail),
    }
}

fn nobody_is_up(service: &waypost_client::Service) -> bool {
    use waypost_client::PickContext;
    let picked = service.pick(&PickContext::new());
    matches!(picked, Err(NoInstance::Empty | NoInstance::NoneServing { .. }))
}

/// Whether it is a call of gRPC, which knows no other version of HTTP.
fn is_grpc(version: Version, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    version == Version::HTTP_2
        && kind.is_some_and(|kind| {
            let rest = kind.strip_prefix("application/grpc");
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
        })
}
