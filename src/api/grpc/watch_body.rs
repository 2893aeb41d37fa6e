//! What a watch tells, as the body of its answer. Each message is written into as many bytes as it has,
//! which are gone once they are sent: a watch that has nothing to say keeps nothing of what it said, where
//! the buffer of a stream stays as large as its largest message.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes};
use http::Response;
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use prost::Message;
use tonic::{Status, body::Body};

use super::encoded::WatchResponse;
use crate::engine::Watch;

/// What stands before each message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A watch on its way from the method that opens it, beside the stream that the method has to answer
/// with.
#[derive(Clone)]
pub(super) struct Opened(Arc<Mutex<Option<Watch>>>);

impl Opened {
    pub(super) fn new(watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(Some(watch))))
    }

    /// The answer with the watch that comes with it as its body, where one does.
    pub(super) fn as_body(mut answer: Response<Body>) -> Response<Body> {
        match answer.extensions_mut().remove().and_then(|Self(watch)| watch.lock().take()) {
            Some(watch) => answer.map(|_empty| Body::new(WatchBody(watch))),
            None => answer,
        }
    }
}

/// A body that goes on for as long as somebody reads it.
struct WatchBody(Watch);

impl HttpBody for WatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (event, cursor) = ready!(self.0.poll_next(context));
        let message = WatchResponse::new(&event, self.0.filter(), cursor);
        Poll::Ready(Some(Ok(Frame::data(framed(&message)))))
    }
}

/// A message that is not compressed, as gRPC frames it.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // An event is bounded far below.
    bytes.put_u32(length as u32);
    message.encode_raw(&mut bytes);
    bytes.into()
}
