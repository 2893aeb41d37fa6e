//! An answer that is being read: the call counts as in flight for as long. It must never change what
//! it passes on.

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

/// Whether trailers, or the head of an answer without any, say that the instance did not serve the
/// call and might not serve the next one either.
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

/// A call that was answered, until the answer is read.
pub(super) struct TrackedResponse {
    pub(super) pick: Pick,
    /// Until the answer's head, where it is still to be seen how the call went.
    pub(super) took: Option<ResponseTime>,
    /// An answer breaks off with it where the caller breaks it off.
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

/// An answer's body, which keeps the call counted as in flight.
pub(super) struct TrackedResponseBody {
    pub(super) body: ResponseBody,
    /// Gone once the body has ended.
    pub(super) call: Option<TrackedResponse>,
}

impl TrackedResponseBody {
    /// Refuses trailers over the limit. They are no fault of the instance's.
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
            frame.map_err(|error| Status::unavailable(format!("the answer broke off: {error}")))
        });
        // Trailers end a call; whoever read them does not always ask for more.
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
    /// Who stops reading has been answered.
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.end(false);
        }
    }
}
