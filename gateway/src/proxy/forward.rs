//! Forwards an admitted request to an instance, and maps its response to the caller's.

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts,
};
use hyper::body::Incoming;
use tonic::body::Body;
use tower::Service as _;
use waypost_client::{CallTimeout, ServedBy};

use super::{
    admit::Admitted,
    context::Context,
    problems,
    request_body::{self, BodyLimits},
    response_body::WithoutForbiddenTrailers,
    status_trailers::StatusTrailers,
    tunnel,
};
use crate::{
    clock,
    headers::hop_by_hop::{self, Upgrade},
    observe::RequestOutcome,
    problem::Problem,
    routes::Route,
    upstream::channels::{MatchedRoute, ReplayPolicy},
};

/// Sends a request to an instance. Notes the instance and its time in `outcome`.
pub(super) async fn forward(
    context: &Context<'_>,
    admitted: Admitted,
    head: Parts,
    body: Incoming,
    outcome: &mut RequestOutcome,
) -> Result<Response<Body>, Problem> {
    let upgrade = admitted.upgrade;
    let limits = body_limits(context);
    let length = http_body::Body::size_hint(&body).lower();
    if limits.bytes_max.is_some_and(|bytes_max| length > bytes_max) {
        return Err(problems::body_too_long());
    }
    let (body, mut faults) = request_body::limit(body, limits);
    let channel = context.settings.channels.channel(&admitted.route, &admitted.upstream);
    let replay = replay_policy(&admitted.route, &head.method);
    let request = upstream_request(context, admitted, head, body);
    let began = clock::now();
    let call = async {
        if context.is_grpc {
            let Ok(response) = channel.grpc(replay).call(request).await;
            return Ok(response);
        }
        channel.http(replay).call(request).await
    };
    let responded = tokio::select! {
        biased;
        fault = faults.next() => return Err(problems::body_error(fault)),
        responded = call => responded,
    };
    outcome.upstream_time = Some(clock::now() - began);
    if let Some(fault) = faults.last() {
        return Err(problems::body_error(fault));
    }
    match responded {
        Ok(mut response) => {
            if let Some(by) = response.extensions_mut().remove::<ServedBy>() {
                outcome.served_by(&by);
            }
            if context.is_grpc {
                response = response.map(|body| Body::new(StatusTrailers::new(body)));
            }
            map_response(context, response, upgrade)
        }
        Err(error) => {
            outcome.failed(&error);
            Err(problems::upstream_error(&error, channel.service()))
        }
    }
}

/// Returns the limits of a request's body. A gRPC call has none: it may be a stream of any length,
/// with pauses of any length, and limits its messages itself.
fn body_limits(context: &Context<'_>) -> BodyLimits {
    if context.is_grpc {
        return BodyLimits::default();
    }
    let Context { gateway, settings, .. } = context;
    BodyLimits { bytes_max: settings.body_max(), silence_max: Some(gateway.body_silence_max) }
}

/// Assembles the request that the instance gets.
fn upstream_request(
    context: &Context<'_>,
    admitted: Admitted,
    mut head: Parts,
    body: Body,
) -> Request<Body> {
    if !context.is_grpc {
        set_host_and_framing(&admitted.route, &mut head, &body);
    }
    head.uri = Uri::from(admitted.path);
    head.version = Version::default();
    // They belong to the caller's connection.
    head.extensions.clear();
    let mut request = Request::from_parts(head, body);
    let extensions = request.extensions_mut();
    if !context.is_grpc {
        extensions.insert(CallTimeout(admitted.timeout));
    }
    if let Some(raw_target) = admitted.raw_target {
        extensions.insert(raw_target);
    }
    if let Some(key) = admitted.key {
        extensions.insert(key);
    }
    request
}

/// Sets the host and the framing of the body as the instance's version of HTTP has them.
fn set_host_and_framing(route: &Route, head: &mut Parts, body: &Body) {
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

fn replay_policy(route: &MatchedRoute, method: &Method) -> ReplayPolicy {
    if method.is_safe() {
        ReplayPolicy::Hedged
    } else if route.may_replay(method) {
        ReplayPolicy::Idempotent
    } else {
        ReplayPolicy::Never
    }
}

/// Maps an instance's response to the caller's. Starts the tunnel where the connection is upgraded.
fn map_response(
    context: &Context<'_>,
    mut response: Response<Body>,
    upgrade: Upgrade,
) -> Result<Response<Body>, Problem> {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS && upgrade != Upgrade::WebSocket {
        return Err(problems::unexpected_upgrade());
    }
    hop_by_hop::strip_response(response.headers_mut(), status, upgrade);
    *response.version_mut() = Version::default();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| Body::new(WithoutForbiddenTrailers(body))));
    }
    let (here, there) = (context.upgrade.clone(), hyper::upgrade::on(&mut response));
    let (head, body) = response.into_parts();
    // The body counts the call as in flight, for as long as the tunnel is open.
    let tunnel = tunnel::run(here, there, body, context.gateway.shutdown.abort.clone());
    context.gateway.connections.spawn("tunnel", tunnel);
    Ok(Response::from_parts(head, Body::empty()))
}
