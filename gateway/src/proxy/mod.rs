//! Serves one request: [`admit`](admit::admit) checks it and finds its route, [`forward`](forward::forward)
//! sends it to an instance. What keeps either from it is a problem, which becomes a response here.
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
    observe::access_log::{Entry, Outcome},
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
    // Before fields are added that are not the caller's.
    let checked = guard::check(&head);
    let correlation = Correlation::establish(&mut head.headers, clock::wall_now);
    let untold = gateway.begin(Entry::begin(&head, peer, &correlation));
    let is_grpc = is_grpc(&head);
    let (gateway, settings, correlation) = (&*gateway, &*settings, &correlation);
    let context = Context { gateway, settings, correlation, peer, checked, is_grpc, upgrade };
    let (mut response, outcome) = if settings.dresses() {
        // Boxed: it has room for what most requests do without.
        Box::pin(with_cors_and_compression(&context, head, body)).await
    } else {
        respond(&context, head, body).await
    };
    response.headers_mut().insert(REQUEST_ID.clone(), correlation.request_id().clone());
    Ok(untold.tell(outcome, response))
}

/// Responds within the layers for CORS and compression.
async fn with_cors_and_compression(
    context: &Context<'_>,
    head: Parts,
    body: Incoming,
) -> (Response<Body>, Outcome) {
    let inner = tower::service_fn(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let (mut response, outcome) = respond(context, head, body).await;
        response.extensions_mut().insert(outcome);
        Ok::<_, Infallible>(response)
    });
    let Ok(mut response) = context.settings.dress(inner, Request::from_parts(head, body)).await;
    let outcome = response.extensions_mut().remove::<Outcome>().unwrap_or_default();
    (response, outcome)
}

/// Responds with what an instance responds, or with a problem.
async fn respond(context: &Context<'_>, head: Parts, body: Incoming) -> (Response<Body>, Outcome) {
    let version = head.version;
    // What follows on the connection may be the rest of it.
    let is_last = context.checked.is_err() || !http_body::Body::is_end_stream(&body);
    let mut outcome = Outcome::default();
    match admit_and_forward(context, head, body, &mut outcome).await {
        Ok(response) => (response, outcome),
        Err(mut problem) => {
            if is_last {
                problem = problem.last(version);
            }
            let outcome = outcome.with_problem(&problem);
            let id = context.correlation.request_id_text();
            let response =
                if context.is_grpc { problem.answer_grpc(id) } else { problem.answer(id) };
            (response, outcome)
        }
    }
}

async fn admit_and_forward(
    context: &Context<'_>,
    mut head: Parts,
    body: Incoming,
    outcome: &mut Outcome,
) -> Result<Response<Body>, Problem> {
    let unusual = context.checked.map_err(problems::refused)?;
    if head.uri.path() == "*" {
        return Ok(options_asterisk());
    }
    let admitted = admit::admit(context, &mut head, unusual, outcome).await?;
    let service = admitted.route.service.clone();
    let forwarded = forward::forward(context, admitted, head, body, outcome).await;
    forwarded.map_err(|problem| problem.of(service.as_str()))
}

/// Responds to `OPTIONS *`, which asks what the gateway can do, of no path in particular.
fn options_asterisk() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, guard::ALLOW);
    response
}
