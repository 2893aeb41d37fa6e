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
use waypost_core::failpoint::planted;

use super::end::last_frame;
use crate::{
    api::grpc::{error, message::WatchResponse},
    auth::{AccessError, Caller},
    engine::Watch,
};

/// The prefix of each gRPC message: a compression flag and the length.
const PREFIX_BYTES: usize = 5;

/// A watch in the extensions of the response with which the method returns it to the dispatcher.
#[derive(Clone)]
pub(in crate::api::grpc) struct OpenedWatch(Arc<Mutex<Option<WatchBody>>>);

impl OpenedWatch {
    /// The watch of a caller whose right to its scope was decided at `epoch` or later.
    pub(in crate::api::grpc) fn new(watch: Watch, caller: Caller, epoch: u64) -> Self {
        Self(Arc::new(Mutex::new(Some(WatchBody { watch, caller, epoch, ended: false }))))
    }

    /// Makes the watch in the response's extensions its body, if there is one.
    pub(in crate::api::grpc) fn as_body(mut response: Response<Body>) -> Response<Body> {
        match response.extensions_mut().remove().and_then(|Self(body)| body.lock().take()) {
            Some(body) => response.map(|_empty| Body::new(body)),
            None => response,
        }
    }
}

/// A body that ends when the caller may no longer discover what it watches.
struct WatchBody {
    watch: Watch,
    caller: Caller,
    /// The epoch that the watch's scope is of.
    epoch: u64,
    ended: bool,
}

impl WatchBody {
    /// Gives the watch the scope that the caller may discover at the present epoch.
    fn meet_epoch(&mut self) -> Result<(), AccessError> {
        let epoch = self.caller.epoch();
        if epoch != self.epoch && !planted("stream-outlives-right") {
            let permit = self.caller.watch_on(self.watch.subjects())?;
            self.watch.set_scope(permit);
            self.epoch = epoch;
        }
        Ok(())
    }
}

impl HttpBody for WatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Err(reason) = self.meet_epoch() {
            self.ended = true;
            return Poll::Ready(last_frame(&error::refused_access(&reason)));
        }
        let (event, cursor) = ready!(self.watch.poll_next(context));
        let message = WatchResponse::new(&event, self.watch.filter(), cursor);
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
