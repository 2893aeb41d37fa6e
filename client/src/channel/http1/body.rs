//! The body of an answer as it comes in. It must never give a connection back that something of it is
//! still on.

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
    /// The connection that it has for itself, and where that goes afterwards.
    own: Option<(Box<Http1Connection>, Arc<IdleConnections>)>,
}

impl ResponseBody {
    /// Over a connection that sees to itself.
    pub(crate) fn shared(body: Incoming) -> Self {
        Self { body, own: None }
    }

    /// Over `connection`, which goes back to `idle` once all of it was read.
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
        // The connection has the waker: nothing else brings more.
        let mut unheard = Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut *body).poll_frame(&mut unheard);
        if frame.is_ready() {
            return frame;
        }
        connection.advance(context);
        Pin::new(body).poll_frame(&mut unheard)
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
