//! The body of an answer as it comes in. It must never give a connection back that something of it is
//! still on.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{connection::Http1, pool::Pool};

pub(crate) struct Inflow {
    body: Incoming,
    /// The connection that it has for itself, and where that goes afterwards.
    own: Option<(Box<Http1>, Pool)>,
}

impl Inflow {
    /// Over a connection that sees to itself.
    pub(crate) fn shared(body: Incoming) -> Self {
        Self { body, own: None }
    }

    /// Over `connection`, which goes back to `pool` once all of it was read.
    pub(super) fn own(body: Incoming, connection: Box<Http1>, pool: Pool) -> Self {
        Self { body, own: Some((connection, pool)) }
    }
}

impl http_body::Body for Inflow {
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

impl Drop for Inflow {
    fn drop(&mut self) {
        if let Some((connection, pool)) = self.own.take() {
            pool.give_back(connection);
        }
    }
}
