//! The body of a response, which reports its end: so its request is logged when the response was
//! sent or abandoned.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

/// A body that calls `on_end` once, when it is dropped.
pub(crate) struct LoggedBody<F: FnOnce(SentBody)> {
    body: Body,
    sent: SentBody,
    on_end: Option<F>,
}

/// The part of a body that was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SentBody {
    pub(crate) bytes: u64,
    pub(crate) complete: bool,
}

impl<F: FnOnce(SentBody)> LoggedBody<F> {
    pub(crate) fn new(body: Body, on_end: F) -> Self {
        use http_body::Body as _;
        // An empty body is never polled.
        let sent = SentBody { bytes: 0, complete: body.is_end_stream() };
        Self { body, sent, on_end: Some(on_end) }
    }
}

impl<F: FnOnce(SentBody) + Unpin> http_body::Body for LoggedBody<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.sent.complete = true,
            Some(Err(_)) => {}
            Some(Ok(frame)) => {
                self.sent.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // A body is not always polled again after its last frame.
                self.sent.complete = frame.is_trailers() || self.body.is_end_stream();
            }
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

impl<F: FnOnce(SentBody)> Drop for LoggedBody<F> {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.sent);
        }
    }
}
