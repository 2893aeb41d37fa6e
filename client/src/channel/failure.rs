//! An attempt that came to nothing, and what its caller is told where no other one is made.

use http::{Response, StatusCode};
use tonic::{Code, Status, body::Body};

use super::retry::RetryCause;
use crate::channel::retry::Pushback;

/// Why an attempt came to nothing.
pub(super) enum AttemptFailure {
    /// There is no instance to send it to.
    NoInstance(Status),
    /// The instance took no connection.
    Connect(Status),
    /// No instance has seen to it, and none will.
    Unsent(Status),
    /// Its connection was lost before an answer.
    ConnectionLost(Status),
    /// An instance served it, and its response can't be passed on.
    InvalidResponse(Status),
    /// The answer says that the instance does not serve it now.
    Unavailable(Box<Response<Body>>),
    /// The caller's time is over.
    TimedOut,
}

impl AttemptFailure {
    /// `answer`, where that does not say that the instance does not serve the call now.
    pub(super) fn check(response: Response<Body>) -> Result<Response<Body>, Self> {
        if is_unavailable(&response) {
            Err(Self::Unavailable(Box::new(response)))
        } else {
            Ok(response)
        }
    }

    /// What follows from it for another attempt; `None` where none can help.
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

    /// What two attempts at once came to that both failed. What may have been served goes before what was
    /// not, which would be sent again unasked.
    pub(super) fn or_possibly_served(self, other: Self) -> Self {
        match (&self, &other) {
            (
                Self::NoInstance(_) | Self::Connect(_) | Self::Unsent(_),
                Self::ConnectionLost(_) | Self::InvalidResponse(_) | Self::Unavailable(_),
            ) => other,
            _ => self,
        }
    }

    /// What the caller gets.
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

/// Whether an answer's head says that the call is not served now: with gRPC's word for it, or, from what
/// stands between and speaks HTTP alone, with those that gRPC takes for the same.
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
    fn only_unavailable_is_not_served_now() {
        assert!(is_unavailable(&response(200, Some("14"))));
        for code in ["0", "2", "4", "8", "13"] {
            assert!(!is_unavailable(&response(200, Some(code))), "{code}");
            assert!(!is_unavailable(&response(503, Some(code))), "{code}");
        }
        assert!(!is_unavailable(&response(200, None)));
    }

    #[test]
    fn proxies_say_it_in_http() {
        for status in [429, 502, 503, 504] {
            assert!(is_unavailable(&response(status, None)), "{status}");
        }
        for status in [400, 401, 404, 500] {
            assert!(!is_unavailable(&response(status, None)), "{status}");
        }
    }

    #[test]
    fn of_two_failures_the_one_that_may_have_been_served_counts() {
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
