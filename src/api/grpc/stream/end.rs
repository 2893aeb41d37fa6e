//! Ends open streams: responses with `UNAVAILABLE` when the server shuts down, and with the reason
//! when the caller has lost its right; requests when the caller no longer reads the responses.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

use super::{access::StreamAccess, send_buffer::SendBuffer};
use crate::api::grpc::error;

/// The end of both directions of one stream.
pub(in crate::api::grpc) struct StreamEnd {
    /// Ends the responses.
    closed: Arc<AtomicBool>,
    access: StreamAccess,
    /// Ends the requests, once the responses are dropped.
    unread: CancellationToken,
}

/// A body that ends when its direction ends and no frame is ready.
struct EndingBody {
    body: Body,
    direction: Direction,
    ended: bool,
}

/// The direction of a body, with what ends it.
enum Direction {
    /// From the server. Dropping it ends the requests.
    Responses { closed: Arc<AtomicBool>, access: StreamAccess, _unread: DropGuard },
    /// From the client.
    Requests { unread: Pin<Box<WaitForCancellationFutureOwned>> },
}

impl StreamEnd {
    /// An end of responses when `closed` is set or `access` ends. Neither wakes the stream: it must
    /// be polled.
    pub(in crate::api::grpc) fn new(closed: &Arc<AtomicBool>, access: StreamAccess) -> Self {
        Self { closed: Arc::clone(closed), access, unread: CancellationToken::new() }
    }

    /// The responses' body, with a bounded send buffer.
    pub(in crate::api::grpc) fn of_responses(self, body: Body) -> Body {
        let body = Body::new(SendBuffer::new(body));
        let Self { closed, access, unread } = self;
        let direction = Direction::Responses { closed, access, _unread: unread.drop_guard() };
        Body::new(EndingBody { body, direction, ended: false })
    }

    /// The requests' body.
    pub(in crate::api::grpc) fn of_requests(&self, body: Body) -> Body {
        let unread = Box::pin(self.unread.clone().cancelled_owned());
        Body::new(EndingBody { body, direction: Direction::Requests { unread }, ended: false })
    }
}

impl Direction {
    /// Ready with the last frame, once the direction must end.
    fn poll_end(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self {
            Self::Responses { closed, .. } if !closed.load(Ordering::Acquire) => Poll::Pending,
            Self::Responses { .. } => Poll::Ready(last_frame(&error::draining())),
            Self::Requests { unread } => {
                unread.as_mut().poll(context).map(|()| Some(Err(error::draining())))
            }
        }
    }
}

/// The trailers that end the responses with a status.
pub(super) fn last_frame(status: &Status) -> Option<Result<Frame<Bytes>, Status>> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).is_ok().then(|| Ok(Frame::trailers(trailers)))
}

impl HttpBody for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Before the frames: they may never cease.
        if let Direction::Responses { access, .. } = &mut self.direction
            && let Err(reason) = access.check()
        {
            self.ended = true;
            return Poll::Ready(last_frame(&error::refused_access(&reason)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let end = ready!(self.direction.poll_end(context));
        self.ended = true;
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
