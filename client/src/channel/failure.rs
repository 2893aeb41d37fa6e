//! A failed attempt, and the response that the caller gets if there is no other one.

use http::{Response, StatusCode};
use tonic::{Code, Status, body::Body};

use super::retry::RetryCause;
use crate::channel::retry::Pushback;

/// The reason why an attempt failed.
pub(super) enum AttemptFailure {
    /// There is no instance.
    NoInstance(Status),
    /// The instance took no connection.
    Connect(Status),
    /// No instance has begun to serve it.
    Unsent(Status),
    /// The connection was lost before a response.
    ConnectionLost(Status),
    /// An instance served it, and its response can't be passed on.
    InvalidResponse(Status),
    /// The response states that the instance does not serve it now.
    Unavailable(Box<Response<Body>>),
    /// The call's timeout has passed.
    TimedOut,
}

impl AttemptFailure {
    /// Returns a response, unless it states that the instance does not serve the call now.
    pub(super) fn check(response: Response<Body>) -> Result<Response<Body>, Self> {
        if is_unavailable(&response) {
            Err(Self::Unavailable(Box::new(response)))
        } else {
            Ok(response)
        }
    }

    /// Returns the cause for a retry; `None` if no retry can help.
    pub(super) fn cause(&self) -> Option<RetryCause> {
        match self {
            Self::NoInstance(_) | Self::InvalidResponse(_) | Self::TimedOut => None,
            Self::Connect(_) | Self::Unsent(_) => Some(RetryCause::Unsent),
            Self::ConnectionLost(_) => Some(RetryCause::ConnectionLost),
            Self::Unavailable(response) => {
                Some(RetryCause::Unavailable(Pushback::from_headers(response.headers())))
            }
        }
    }

    /// Combines the failures of two parallel attempts. One that may have been served takes
    /// precedence over one that was not, which would be retried in any case.
    pub(super) fn or_possibly_served(self, other: Self) -> Self {
        match (&self, &other) {
            (
                Self::NoInstance(_) | Self::Connect(_) | Self::Unsent(_),
                Self::ConnectionLost(_) | Self::InvalidResponse(_) | Self::Unavailable(_),
            ) => other,
            _ => self,
        }
    }

    /// Returns the response for the caller.
    pub(super) fn into_response(self) -> Response<Body> {
        match self {
            Self::NoInstance(status)
            | Self::Connect(status)
            | Self::Unsent(status)
            | Self::ConnectionLost(status)
            | Self::InvalidResponse(status) => status.into_http(),
            Self::TimedOut => {
                Status::deadline_exceeded("the call's timeout has passed").into_http()
            }
            Self::Unavailable(response) => *response,
        }
    }
}

/// Returns whether a response states that the call is not served now: by gRPC's status or, from a
/// proxy that speaks HTTP alone, by those that gRPC maps to it.
pub(super) fn is_unavailable<B>(response: &Response<B>) -> bool {
    match Status::from_header_map(response.headers()) {
        Some(status) => status.code() == Code::Unavailable,
        None => matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(http: u16, grpc: Option<&str>) -> Response<()> {
        let response = Response::builder().status(http);
        let response =
            grpc.into_iter().fold(response, |response, code| response.header("grpc-status", code));
        response.body(()).unwrap()
    }

    #[test]
    fn only_unavailable_means_not_served_now() {
        assert!(is_unavailable(&response(200, Some("14"))));
        for code in ["0", "2", "4", "8", "13"] {
            assert!(!is_unavailable(&response(200, Some(code))), "{code}");
            assert!(!is_unavailable(&response(503, Some(code))), "{code}");
        }
        assert!(!is_unavailable(&response(200, None)));
    }

    #[test]
    fn http_statuses_of_proxies_count() {
        for status in [429, 502, 503, 504] {
            assert!(is_unavailable(&response(status, None)), "{status}");
        }
        for status in [400, 401, 404, 500] {
            assert!(!is_unavailable(&response(status, None)), "{status}");
        }
    }

    #[test]
    fn a_failure_that_may_have_been_served_takes_precedence() {
        let status = || Status::unavailable("");
        let unsent = || AttemptFailure::Unsent(status());
        for (first, second) in [
            (unsent(), AttemptFailure::ConnectionLost(status())),
            (AttemptFailure::ConnectionLost(status()), unsent()),
            (AttemptFailure::NoInstance(status()), AttemptFailure::ConnectionLost(status())),
        ] {
            assert_eq!(first.or_possibly_served(second).cause(), Some(RetryCause::ConnectionLost));
        }
        assert_eq!(
            unsent().or_possibly_served(AttemptFailure::NoInstance(status())).cause(),
            Some(RetryCause::Unsent)
        );
    }
}
