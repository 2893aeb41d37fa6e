//! An attempt that came to nothing, and what its caller is told where no other one is made.

use http::{Response, StatusCode};
use tonic::{Code, Status, body::Body};

use super::retry::Cause;
use crate::channel::retry::Pushback;

/// Why an attempt came to nothing.
pub(super) enum Failure {
    /// There is no instance to send it to.
    Nowhere(Status),
    /// The instance took no connection.
    Unreached(Status),
    /// No instance has seen to it, and none will.
    Unsent(Status),
    /// Its connection was lost before an answer.
    Lost(Status),
    /// An instance served it, and its response can't be passed on.
    Unusable(Status),
    /// The answer says that the instance does not serve it now.
    Unavailable(Box<Response<Body>>),
    /// The caller's time is over.
    Late,
}

impl Failure {
    /// `answer`, where that does not say that the instance does not serve the call now.
    pub(super) fn check(answer: Response<Body>) -> Result<Response<Body>, Self> {
        if is_unavailable(&answer) { Err(Self::Unavailable(Box::new(answer))) } else { Ok(answer) }
    }

    /// What follows from it for another attempt; `None` where none can help.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Nowhere(_) | Self::Unusable(_) | Self::Late => None,
            Self::Unreached(_) | Self::Unsent(_) => Some(Cause::Unsent),
            Self::Lost(_) => Some(Cause::Lost),
            Self::Unavailable(answer) => Some(Cause::Unavailable(Pushback::of(answer.headers()))),
        }
    }

    /// What two attempts at once came to that both failed. What may have been served goes before what was
    /// not, which would be sent again unasked.
    pub(super) fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (
                Self::Nowhere(_) | Self::Unreached(_) | Self::Unsent(_),
                Self::Lost(_) | Self::Unusable(_) | Self::Unavailable(_),
            ) => other,
            _ => self,
        }
    }

    /// What the caller gets.
    pub(super) fn answer(self) -> Response<Body> {
        match self {
            Self::Nowhere(status)
            | Self::Unreached(status)
            | Self::Unsent(status)
            | Self::Lost(status)
            | Self::Unusable(status) => status.into_http(),
            Self::Late => Status::deadline_exceeded("the call's timeout has passed").into_http(),
            Self::Unavailable(answer) => *answer,
        }
    }
}

/// Whether an answer's head says that the call is not served now: with gRPC's word for it, or, from what
/// stands between and speaks HTTP alone, with those that gRPC takes for the same.
pub(super) fn is_unavailable<B>(answer: &Response<B>) -> bool {
    match Status::from_header_map(answer.headers()) {
        Some(status) => status.code() == Code::Unavailable,
        None => matches!(
            answer.status(),
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

    fn answer(http: u16, grpc: Option<&str>) -> Response<()> {
        let answer = Response::builder().status(http);
        let answer =
            grpc.into_iter().fold(answer, |answer, code| answer.header("grpc-status", code));
        answer.body(()).unwrap()
    }

    #[test]
    fn only_unavailable_is_not_served_now() {
        assert!(is_unavailable(&answer(200, Some("14"))));
        for code in ["0", "2", "4", "8", "13"] {
            assert!(!is_unavailable(&answer(200, Some(code))), "{code}");
            assert!(!is_unavailable(&answer(503, Some(code))), "{code}");
        }
        assert!(!is_unavailable(&answer(200, None)));
    }

    #[test]
    fn proxies_say_it_in_http() {
        for status in [429, 502, 503, 504] {
            assert!(is_unavailable(&answer(status, None)), "{status}");
        }
        for status in [400, 401, 404, 500] {
            assert!(!is_unavailable(&answer(status, None)), "{status}");
        }
    }

    #[test]
    fn of_two_failures_the_one_that_may_have_been_served_counts() {
        let status = || Status::unavailable("");
        let unsent = || Failure::Unsent(status());
        for (first, second) in [
            (unsent(), Failure::Lost(status())),
            (Failure::Lost(status()), unsent()),
            (Failure::Nowhere(status()), Failure::Lost(status())),
        ] {
            assert_eq!(first.or(second).cause(), Some(Cause::Lost));
        }
        assert_eq!(unsent().or(Failure::Nowhere(status())).cause(), Some(Cause::Unsent));
    }
}
