//! HTTP beside gRPC: the `date` of responses, and the response to requests that are not gRPC.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, DATE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use tonic::body::Body;

use crate::{auth::AccessError, clock::Clock};

/// Makes the problem document of a caller that is refused.
pub(super) fn refused(error: &AccessError) -> Response<Body> {
    let status = match error {
        AccessError::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        AccessError::NotAllowed { .. } | AccessError::HostNotAllowed { .. } => {
            StatusCode::FORBIDDEN
        }
        AccessError::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
        AccessError::WrongAuthority => StatusCode::MISDIRECTED_REQUEST,
    };
    let title = status.canonical_reason().unwrap_or_default();
    let document = json!({
        "title": title,
        "status": status.as_u16(),
        "detail": error.to_string(),
        "reason": error.reason(),
    });
    let mut response = Response::new(Body::new(format!("{document}\n")));
    *response.status_mut() = status;
    let problem = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, problem);
    if let AccessError::Limited { retry, .. } = error {
        let seconds = retry.as_secs() + u64::from(retry.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Makes a problem document (RFC 9457): the port serves only gRPC.
pub(super) fn not_found() -> Response<Body> {
    const PROBLEM: &str = concat!(
        r#"{"title":"Not Found","status":404,"#,
        r#""detail":"This port serves gRPC; reflection lists its services."}"#,
        "\n"
    );
    let mut response = Response::new(Body::new(PROBLEM.to_owned()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let problem = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, problem);
    response
}

/// Adds the `date` to a response, by the server's clock, which a simulation may replace.
pub(super) fn dated(mut response: Response<Body>, clock: Clock) -> Response<Body> {
    thread_local! {
        static LATEST: RefCell<(u64, HeaderValue)> = RefCell::new((0, formatted(0)));
    }
    let second = clock.wall().0 / 1000;
    let date = LATEST.with_borrow_mut(|latest| {
        if latest.0 != second {
            *latest = (second, formatted(second));
        }
        latest.1.clone()
    });
    response.headers_mut().insert(DATE, date);
    response
}

fn formatted(second: u64) -> HeaderValue {
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""))
}
