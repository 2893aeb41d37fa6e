//! The problems that the proxy responds with: each status, title and detail in one place.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode, header};
use waypost_auth::{MissingScope, Unauthorized};
use waypost_client::{FailureKind, HttpChannelError, NoInstance, PickContext, Service};

use super::request_body::BodyFault;
use crate::{guard::Refused, limits::RateLimited, problem::Problem};

/// The request was refused for its head.
pub(super) fn refused(refused: Refused) -> Problem {
    Problem::new(refused.status, "Refused", refused.reason)
}

pub(super) fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "No route", "no route leads from this path")
}

pub(super) fn method_not_allowed(allow: &HeaderValue) -> Problem {
    let detail = "the route takes other methods";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail);
    problem.with_header(header::ALLOW, allow.clone())
}

pub(super) fn unauthorized(reason: Unauthorized) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "Unauthorized", reason.to_string());
    problem.with_header(header::WWW_AUTHENTICATE, reason.www_authenticate())
}

pub(super) fn missing_scope(missing: &MissingScope) -> Problem {
    let problem = Problem::new(StatusCode::FORBIDDEN, "Forbidden", missing.to_string());
    problem.with_header(header::WWW_AUTHENTICATE, missing.www_authenticate())
}

pub(super) fn rate_limited(limited: RateLimited) -> Problem {
    let detail = "the client is over the rate limit of the route";
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests", detail);
    problem.with_header(header::RETRY_AFTER, limited.retry_after_header())
}

pub(super) fn unknown_service() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "Unknown service",
        "no instance of the service is registered",
    )
}

/// The service has no instance that could get the request.
pub(super) fn no_instance(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "No instance", detail).retry_after(1)
}

pub(super) fn bad_target() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "Refused", "the path is not a valid target")
}

pub(super) fn body_too_long() -> Problem {
    let detail = "the request's body is over the limit";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Body too large", detail)
}

/// The request has a faulty body.
pub(super) fn body_error(fault: BodyFault) -> Problem {
    match fault {
        BodyFault::TooLong => body_too_long(),
        BodyFault::TooSlow => {
            let detail = "no bytes of the request's body arrived for too long";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", detail)
        }
        BodyFault::Broken => {
            let detail = "the connection closed before the end of the request's body";
            Problem::new(StatusCode::BAD_REQUEST, "Incomplete request", detail)
        }
    }
}

pub(super) fn unexpected_upgrade() -> Problem {
    let detail = "the instance switched protocols without a request to";
    Problem::new(StatusCode::BAD_GATEWAY, "No response", detail)
}

/// No instance of `service` responded.
pub(super) fn upstream_error(error: &HttpChannelError, service: &Service) -> Problem {
    let detail = error.to_string();
    match error.kind() {
        FailureKind::TimedOut => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "Gateway timeout", detail)
        }
        FailureKind::LimitReached => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Busy", detail).retry_after(1)
        }
        FailureKind::Unsent if is_empty(service) => no_instance(detail),
        FailureKind::Unsent => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Unreachable", detail).retry_after(1)
        }
        FailureKind::HeadTooLarge => Problem::new(StatusCode::BAD_GATEWAY, "Bad response", detail),
        _ => Problem::new(StatusCode::BAD_GATEWAY, "No response", detail),
    }
}

/// Returns true where no instance of `service` takes traffic.
fn is_empty(service: &Service) -> bool {
    let picked = service.pick(&PickContext::new());
    matches!(picked, Err(NoInstance::Empty | NoInstance::NoneServing { .. }))
}
