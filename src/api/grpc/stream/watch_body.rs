//! The response body of a watch. Each message is encoded into exactly as many bytes as it has, which
//! are freed once sent: an idle watch keeps no buffer, where tonic's stays as large as its largest
//! message.

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

use crate::{api::grpc::message::WatchResponse, engine::Watch};

/// The prefix of each gRPC message: a compression flag and the length.
const PREFIX_BYTES: usize = 5;

/// A watch on its way from the method that opens it to the dispatcher, beside the empty stream that
/// the method returns.
#[derive(Clone)]
pub(in crate::api::grpc) struct OpenedWatch(Arc<Mutex<Option<Watch>>>);

impl OpenedWatch {
    pub(in crate::api::grpc) fn new(watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(Some(watch))))
    }

    /// The response, with the watch in its extensions, if there is one, as its body.
    pub(in crate::api::grpc) fn as_body(mut response: Response<Body>) -> Response<Body> {
        match response.extensions_mut().remove().and_then(|Self(watch)| watch.lock().take()) {
            Some(watch) => response.map(|_empty| Body::new(WatchBody(watch))),
            None => response,
        }
    }
}

/// A body without an end of its own.
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

/// An uncompressed message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // Events are far smaller than 4 GiB.
    bytes.put_u32(length as u32);
    message.encode_raw(&mut bytes);
    bytes.into()
}
