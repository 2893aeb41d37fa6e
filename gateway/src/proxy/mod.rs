//! Serves one request: [`admit`](admit::admit) checks it and finds its route,
//! [`forward`](forward::forward) sends it to an instance. The problem of either becomes a response.
//! Invariant: nothing reaches an instance that the [guard](crate::guard) did not check.

mod admit;
mod context;
mod forward;
mod problems;
pub(crate) mod rejection;
mod request_body;
mod response_body;
mod status_trailers;
mod tunnel;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode, Version, header, request::Parts};
use hyper::body::Incoming;
use tonic::body::Body;
use waypost_serving::correlation::{Correlation, REQUEST_ID};

use self::context::{Context, is_grpc};
use crate::{
    clock,
    gateway::Gateway,
    guard,
    headers::hop_by_hop,
    observe::{RequestOutcome, RequestRecord},
    problem::Problem,
};

/// Responds to a request, and logs it once the response was sent.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let settings = gateway.settings();
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    if head.version == Version::HTTP_2 {
        // RFC 9113, 8.2.3: the crumbs of a cookie are one field, and count as one.
        hop_by_hop::join_cookies(&mut head.headers);
    }
    // Before the gateway adds fields.
    let checked = guard::check(&head);
    let correlation = Correlation::establish(&mut head.headers, clock::wall_now);
    let log = gateway.begin(RequestRecord::new(&head, peer, &correlation));
    let is_grpc = is_grpc(&head);
    let (gateway, settings, correlation) = (&*gateway, &*settings, &correlation);
    let context = Context { gateway, settings, correlation, peer, checked, is_grpc, upgrade };
    let (mut response, outcome) = if !settings.layers.is_empty() {
        // Boxed: most requests do without its size.
        Box::pin(with_cors_and_compression(&context, head, body)).await
    } else {
        respond(&context, head, body).await
    };
    response.headers_mut().insert(REQUEST_ID.clone(), correlation.request_id().clone());
    Ok(log.respond(outcome, response))
}

/// Responds within the layers for CORS and compression.
async fn with_cors_and_compression(
    context: &Context<'_>,
    head: Parts,
    body: Incoming,
) -> (Response<Body>, RequestOutcome) {
    let inner = tower::service_fn(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let (mut response, outcome) = respond(context, head, body).await;
        response.extensions_mut().insert(outcome);
        Ok::<_, Infallible>(response)
    });
    let Ok(mut response) =
        context.settings.layers.respond(inner, Request::from_parts(head, body)).await;
    let outcome = response.extensions_mut().remove::<RequestOutcome>().unwrap_or_default();
    (response, outcome)
}

/// Responds with an instance's response, or with a problem.
async fn respond(
    context: &Context<'_>,
    head: Parts,
    body: Incoming,
) -> (Response<Body>, RequestOutcome) {
    let version = head.version;
    // The rest of a refused request could be taken for the next one.
    let is_last = context.checked.is_err() || !http_body::Body::is_end_stream(&body);
    let mut outcome = RequestOutcome::default();
    match admit_and_forward(context, head, body, &mut outcome).await {
        Ok(response) => (response, outcome),
        Err(mut problem) => {
            if is_last {
                problem = problem.closing(version);
            }
            let outcome = outcome.with_problem(&problem);
            let id = context.correlation.request_id_text();
            let response = if context.is_grpc {
                problem.into_grpc_response(id)
            } else {
                problem.into_response(id)
            };
            (response, outcome)
        }
    }
}

async fn admit_and_forward(
    context: &Context<'_>,
    mut head: Parts,
    body: Incoming,
    outcome: &mut RequestOutcome,
) -> Result<Response<Body>, Problem> {
    let unusual = context.checked.map_err(problems::refused)?;
    if head.uri.path() == "*" {
        return Ok(options_asterisk());
    }
    let admitted = admit::admit(context, &mut head, unusual, outcome).await?;
    let service = admitted.route.service.clone();
    let forwarded = forward::forward(context, admitted, head, body, outcome).await;
    forwarded.map_err(|problem| problem.for_service(service.as_str()))
}

/// Responds to `OPTIONS *`, which asks for the capabilities of the gateway, not of a path.
fn options_asterisk() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, guard::ALLOW);
    response
}
