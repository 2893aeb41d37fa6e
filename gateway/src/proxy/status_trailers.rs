//! The body of a gRPC response. A failure of the body becomes a status in its trailers: a reset
//! stream would leave the caller without a reason.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

/// A body that ends with a status instead of an error.
pub(crate) struct StatusTrailers<B> {
    body: B,
    has_failed: bool,
}

impl<B> StatusTrailers<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body, has_failed: false }
    }
}

impl<B: Body<Error = Status> + Unpin> Body for StatusTrailers<B> {
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Err(status)) = frame else { return Poll::Ready(frame) };
        self.has_failed = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.has_failed || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_failure_ends_a_body_with_its_status() {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"hello"))),
            Err(Status::resource_exhausted("too much")),
            Ok(Frame::data(Bytes::from_static(b"never"))),
        ];
        let body = StatusTrailers::new(StreamBody::new(stream::iter(frames)));
        let read = body.collect().await.unwrap();
        let trailers = read.trailers().unwrap().clone();
        assert_eq!(read.to_bytes(), "hello");
        assert_eq!(trailers["grpc-status"], "8");
        assert_eq!(trailers["grpc-message"], "too%20much");
    }
}
