//! A response that is being read: its call counts as in flight until the end. Passes all frames on
//! unchanged.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status};

use crate::{
    balance::Pick,
    channel::{call::RequestBodyState, http1::ResponseBody},
    endpoint::{Outcome, ResponseTime},
    transport::InvalidResponse,
};

/// Returns whether trailers, or the head of a response without any, report a failure of the
/// instance.
pub(super) fn is_failure(headers: &HeaderMap) -> bool {
    Status::from_header_map(headers).is_some_and(|status| {
        matches!(
            status.code(),
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        )
    })
}

/// A call with a response that is being read.
pub(super) struct TrackedResponse {
    pub(super) pick: Pick,
    /// The response time; none if the outcome is recorded already.
    pub(super) took: Option<ResponseTime>,
    /// The request's body: if its caller breaks it off, the response breaks off too.
    pub(super) request: RequestBodyState,
}

impl TrackedResponse {
    fn end(self, failed: bool) {
        if let Some(took) = self.took {
            let sign = if failed { Outcome::Failure } else { Outcome::Success };
            self.pick.endpoint().record(sign, took);
        }
    }
}

/// The body of a response, which counts its call as in flight.
pub(super) struct TrackedResponseBody {
    pub(super) body: ResponseBody,
    /// Taken at the end of the body.
    pub(super) call: Option<TrackedResponse>,
}

impl TrackedResponseBody {
    /// Rejects trailers over the limit, which are no failure of the instance.
    fn check(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        if let Some(Err(reason)) = frame.trailers_ref().map(InvalidResponse::check_trailers) {
            let endpoint = self.call.as_ref().map(|call| call.pick.endpoint());
            return Err(reason.status(&endpoint.map_or("the instance", |one| one.address())));
        }
        Ok(frame)
    }
}

impl http_body::Body for TrackedResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let frame = frame.map(|frame| {
            frame.map_err(|error| {
                Status::unavailable(format!("the response body ended early: {error}"))
            })
        });
        // Trailers end a call; not all readers ask for more after them.
        let failed = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(is_failure),
            Some(Err(_)) => Some(self.call.as_ref().is_some_and(|call| !call.request.has_failed())),
            None => Some(false),
        };
        let frame = frame.map(|frame| self.check(frame?));
        if let Some(failed) = failed
            && let Some(call) = self.call.take()
        {
            call.end(failed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedResponseBody {
    /// Counts a response that is not read to the end as a success.
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.end(false);
        }
    }
}
