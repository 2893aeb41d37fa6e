//! The body of a response. Invariant: a connection returns to the pool only after the response body
//! is read to its end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{connection::Http1Connection, idle::IdleConnections};

pub(crate) struct ResponseBody {
    body: Incoming,
    /// The connection of this body alone, and the pool that it returns to.
    own: Option<(Box<Http1Connection>, Arc<IdleConnections>)>,
}

impl ResponseBody {
    /// Creates a body over a connection that a task drives.
    pub(crate) fn shared(body: Incoming) -> Self {
        Self { body, own: None }
    }

    /// Creates a body over `connection`, which returns to `idle` after the end.
    pub(super) fn own(
        body: Incoming,
        connection: Box<Http1Connection>,
        idle: Arc<IdleConnections>,
    ) -> Self {
        Self { body, own: Some((connection, idle)) }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { body, own } = &mut *self;
        let Some((connection, _)) = own else { return Pin::new(body).poll_frame(context) };
        // The connection has the waker: nothing else brings more frames.
        let mut no_waker = Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut *body).poll_frame(&mut no_waker);
        if frame.is_ready() {
            return frame;
        }
        connection.advance(context);
        Pin::new(body).poll_frame(&mut no_waker)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some((connection, idle)) = self.own.take() {
            idle.put_back(connection);
        }
    }
}
