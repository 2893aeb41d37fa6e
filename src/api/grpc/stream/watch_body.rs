//! The response body of a watch. Each message is encoded into a buffer of its size, which is freed
//! once it is sent. tonic's encoder would keep a buffer as large as the largest message in each
//! idle watch.

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

/// A watch in the extensions of the response with which the method returns it to the dispatcher.
#[derive(Clone)]
pub(in crate::api::grpc) struct OpenedWatch(Arc<Mutex<Option<Watch>>>);

impl OpenedWatch {
    pub(in crate::api::grpc) fn new(watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(Some(watch))))
    }

    /// Makes the watch in the response's extensions its body, if there is one.
    pub(in crate::api::grpc) fn as_body(mut response: Response<Body>) -> Response<Body> {
        match response.extensions_mut().remove().and_then(|Self(watch)| watch.lock().take()) {
            Some(watch) => response.map(|_empty| Body::new(WatchBody(watch))),
            None => response,
        }
    }
}

/// A body that never ends by itself.
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

/// Encodes an uncompressed message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // An event has less than 4 GiB.
    bytes.put_u32(length as u32);
    message.encode_raw(&mut bytes);
    bytes.into()
}
