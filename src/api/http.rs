//! Answers to requests that are not gRPC.

use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use tonic::body::Body;

/// Whether the request speaks gRPC.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// There is nothing here but gRPC: a problem document (RFC 9457) that says so.
pub(super) fn not_found() -> Response<Body> {
    const PROBLEM: &str = concat!(
        r#"{"title":"Not Found","status":404,"#,
        r#""detail":"Waypost speaks gRPC on this port; reflection tells what it offers."}"#,
        "\n"
    );
    let mut response = Response::new(Body::new(PROBLEM.to_owned()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let problem = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, problem);
    response
}
