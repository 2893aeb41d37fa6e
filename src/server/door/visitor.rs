//! The calls of a caller without a name: while one that was allowed is under way, its connection
//! may stay.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::strangers::{Acquaintance, Visit};

/// The body of an allowed response.
struct VisitBody {
    body: Body,
    /// Ends with the body.
    _visit: Visit,
}

/// Begins a visit that ends with the response, if that is no error.
pub(crate) fn visited(response: Response<Body>, visitor: &Arc<Acquaintance>) -> Response<Body> {
    let status = response.headers().get(Status::GRPC_STATUS);
    let is_allowed = response.status() == StatusCode::OK
        && status.is_none_or(|status| status.as_bytes() == b"0");
    if !is_allowed {
        return response;
    }
    let visit = visitor.visit();
    response.map(|body| Body::new(VisitBody { body, _visit: visit }))
}

impl HttpBody for VisitBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
