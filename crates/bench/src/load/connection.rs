//! A connection of the load generator: gRPC over one HTTP/2 connection, without more between a caller
//! and the wire than has to be, since the load shares its machine's cores with what it measures.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE},
    uri::Authority,
};
use prost::Message;
use tokio::net::TcpStream;
use tokio_util::io::InspectReader;

use crate::error::{BenchCallError, BenchError};

/// What a peer may send before it is read: so much that it never waits for the load.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A flag and the length, before every message.
const PREFIX_BYTES: usize = 5;

/// A request: where it goes, and its message in gRPC's frame.
#[derive(Clone, Debug)]
pub(crate) struct RpcCall {
    pub(crate) path: &'static str,
    pub(crate) frame: Bytes,
}

impl RpcCall {
    pub(crate) fn new(path: &'static str, message: &impl Message) -> Self {
        Self { path, frame: frame(message) }
    }
}

/// A message in gRPC's frame.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("messages are far smaller"));
    message.encode(&mut frame).expect("there is room");
    frame.freeze()
}

/// One HTTP/2 connection, which its clones share. It closes once all of them and their streams are
/// gone.
#[derive(Clone, Debug)]
pub(crate) struct BenchConnection {
    requests: SendRequest<Bytes>,
    authority: Authority,
}

impl BenchConnection {
    /// Connects. What arrives is counted into `received_bytes`.
    pub(crate) async fn open(
        authority: &Authority,
        received_bytes: &Arc<AtomicU64>,
    ) -> Result<Self, BenchError> {
        let failure = |source| BenchError::Connect { address: authority.to_string(), source };
        let stream = TcpStream::connect(authority.as_str()).await.map_err(failure)?;
        stream.set_nodelay(true).map_err(failure)?;
        let received_bytes = Arc::clone(received_bytes);
        let stream = InspectReader::new(stream, move |read: &[u8]| {
            received_bytes.fetch_add(read.len() as u64, Ordering::Relaxed);
        });
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|error| failure(io::Error::other(error)))?;
        // How it ends, its calls learn.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests, authority: authority.clone() })
    }

    /// The answer to one message. Dropped, the call is reset.
    pub(crate) async fn call(&self, call: RpcCall) -> Result<Bytes, BenchCallError> {
        let (answer, mut sending) = self.begin(call.path).await?;
        sending.send_data(call.frame, true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut frames = Frames::default();
        while let Some(chunk) = body.data().await {
            frames.push(&mut body, chunk?)?;
        }
        match body.trailers().await? {
            Some(trailers) => check(&trailers)?,
            None => check(&head.headers)?,
        }
        frames.next().ok_or(BenchCallError::Nonsense("no message"))
    }

    /// The stream of messages that answers one.
    pub(crate) async fn follow(&self, call: RpcCall) -> Result<StreamReceiver, BenchCallError> {
        let (answer, mut sending) = self.begin(call.path).await?;
        sending.send_data(call.frame, true)?;
        Ok(StreamReceiver { state: ResponseState::Head(answer), frames: Frames::default() })
    }

    /// A stream of messages in both directions.
    pub(crate) async fn stream(
        &self,
        path: &'static str,
    ) -> Result<(StreamSender, StreamReceiver), BenchCallError> {
        let (answer, sending) = self.begin(path).await?;
        let receiver =
            StreamReceiver { state: ResponseState::Head(answer), frames: Frames::default() };
        Ok((StreamSender(sending), receiver))
    }

    async fn begin(
        &self,
        path: &'static str,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), BenchCallError> {
        let mut requests = self.requests.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .expect("each part is one");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(requests.send_request(request, false)?)
    }
}

/// What is sent on a stream, for as long as this lives.
#[derive(Debug)]
pub(crate) struct StreamSender(SendStream<Bytes>);

impl StreamSender {
    /// Queues a framed message.
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), BenchCallError> {
        Ok(self.0.send_data(frame, false)?)
    }
}

/// What arrives on a stream.
#[derive(Debug)]
pub(crate) struct StreamReceiver {
    state: ResponseState,
    frames: Frames,
}

#[derive(Debug)]
enum ResponseState {
    /// The server has not begun to answer.
    Head(ResponseFuture),
    Body(HeaderMap, RecvStream),
}

impl StreamReceiver {
    /// The next message; nothing: the stream ended well. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BenchCallError> {
        loop {
            if let Some(message) = self.frames.next() {
                return Ok(Some(message));
            }
            match &mut self.state {
                ResponseState::Head(answer) => {
                    let (head, body) = answer.await?.into_parts();
                    self.state = ResponseState::Body(head.headers, body);
                }
                ResponseState::Body(head, body) => match body.data().await {
                    Some(chunk) => self.frames.push(body, chunk?)?,
                    None => {
                        match body.trailers().await? {
                            Some(trailers) => check(&trailers)?,
                            None => check(head)?,
                        }
                        return Ok(None);
                    }
                },
            }
        }
    }
}

/// Messages out of what arrives in pieces of any size.
#[derive(Debug, Default)]
struct Frames {
    /// Nearly always whole messages, which are cut out of it without a copy.
    arrived: Bytes,
}

impl Frames {
    fn push(&mut self, body: &mut RecvStream, chunk: Bytes) -> Result<(), BenchCallError> {
        body.flow_control().release_capacity(chunk.len())?;
        if self.arrived.is_empty() {
            self.arrived = chunk;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.arrived));
            joined.extend_from_slice(&chunk);
            self.arrived = joined.freeze();
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Bytes> {
        let mut prefix = self.arrived.get(..PREFIX_BYTES)?;
        prefix.advance(1);
        let end = PREFIX_BYTES + prefix.get_u32() as usize;
        (self.arrived.len() >= end).then(|| self.arrived.split_to(end).slice(PREFIX_BYTES..))
    }
}

/// Whether the call went well.
fn check(trailers: &HeaderMap) -> Result<(), BenchCallError> {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default().to_owned();
            Err(BenchCallError::Refused { code, message })
        }
        None => Err(BenchCallError::Nonsense("no status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_pieces_of_any_size() {
        let sent: Vec<String> = (0..5).map(|length| "x".repeat(length * 7)).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(frame).collect();
        for size in 1..bytes.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                let mut joined = frames.arrived.to_vec();
                joined.extend_from_slice(piece);
                frames.arrived = joined.into();
                while let Some(message) = frames.next() {
                    found.push(String::decode(message).unwrap());
                }
            }
            assert_eq!(found, sent);
        }
    }

    #[test]
    fn refusals_are_told_with_what_the_server_says() {
        let mut trailers = HeaderMap::new();
        assert!(matches!(check(&trailers), Err(BenchCallError::Nonsense(_))));
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(check(&trailers).is_ok());
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        trailers.insert("grpc-message", HeaderValue::from_static("draining"));
        let told = check(&trailers).unwrap_err().to_string();
        assert_eq!(told, "answered with status 14: draining");
    }
}
