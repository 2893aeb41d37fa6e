//! What belongs to HTTP alone: the date of answers, and answers to requests that are not gRPC.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, DATE},
};
use tonic::body::Body;

use crate::clock::Clock;

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

/// The answer with its `date`, which goes by the server's clock: that one may be simulated.
pub(super) fn dated(mut answer: Response<Body>, clock: Clock) -> Response<Body> {
    thread_local! {
        static LATEST: RefCell<(u64, HeaderValue)> = RefCell::new((0, written(0)));
    }
    let second = clock.wall().0 / 1000;
    let date = LATEST.with_borrow_mut(|latest| {
        if latest.0 != second {
            *latest = (second, written(second));
        }
        latest.1.clone()
    });
    answer.headers_mut().insert(DATE, date);
    answer
}

fn written(second: u64) -> HeaderValue {
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""))
}
