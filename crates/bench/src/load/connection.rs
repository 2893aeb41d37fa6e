//! A connection of the load generator: gRPC over one HTTP/2 connection, on `h2` instead of tonic,
//! since the load shares the machine's cores with the server that it measures.

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
    header::{AUTHORIZATION, CONTENT_TYPE, TE},
    uri::Authority,
};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::io::InspectReader;
use waypost_client::RegistryChannel;

use crate::error::{BenchCallError, BenchError};

/// The flow-control window: so large that a server never waits for the load.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// The gRPC prefix of a message: a flag and the length.
const PREFIX_BYTES: usize = 5;

/// A request: its path, and its message in a gRPC frame.
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

/// Encodes a message in a gRPC frame.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("messages are far smaller"));
    message.encode(&mut frame).expect("the buffer has the encoded length");
    frame.freeze()
}

/// One HTTP/2 connection, shared by its clones. It closes once all of them and their streams are
/// dropped.
#[derive(Clone, Debug)]
pub(crate) struct BenchConnection {
    requests: SendRequest<Bytes>,
    authority: Authority,
    /// The scheme of requests, and the token that they carry.
    scheme: &'static str,
    authorization: Option<HeaderValue>,
}

/// The byte stream of a connection.
trait BenchStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> BenchStream for T {}

impl BenchConnection {
    /// Connects to a server that was started for the run. Adds received bytes to `received_bytes`.
    pub(crate) async fn open(
        authority: &Authority,
        received_bytes: &Arc<AtomicU64>,
    ) -> Result<Self, BenchError> {
        let failure = |source| BenchError::Connect { address: authority.to_string(), source };
        let stream = TcpStream::connect(authority.as_str()).await.map_err(failure)?;
        stream.set_nodelay(true).map_err(failure)?;
        Self::start(Box::new(stream), authority, "http", received_bytes).await
    }

    /// Connects to a running registry, with its TLS and credentials.
    pub(crate) async fn open_registry(
        registry: &RegistryChannel,
        authority: &Authority,
        scheme: &'static str,
        received_bytes: &Arc<AtomicU64>,
    ) -> Result<Self, BenchError> {
        let address = || authority.to_string();
        let failure = |error| BenchError::Connect { address: address(), source: error };
        let stream = registry.open_stream().await;
        let stream = stream.map_err(|error| failure(io::Error::other(error)))?;
        let authorization = registry.authorization();
        let authorization = authorization.map_err(|error| failure(io::Error::other(error)))?;
        let connection = Self::start(Box::new(stream), authority, scheme, received_bytes).await?;
        Ok(Self { authorization, ..connection })
    }

    async fn start(
        stream: Box<dyn BenchStream>,
        authority: &Authority,
        scheme: &'static str,
        received_bytes: &Arc<AtomicU64>,
    ) -> Result<Self, BenchError> {
        let failure = |source| BenchError::Connect { address: authority.to_string(), source };
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
        // Its calls receive the error.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests, authority: authority.clone(), scheme, authorization: None })
    }

    /// Makes a unary call. A dropped future resets it.
    pub(crate) async fn call(&self, call: RpcCall) -> Result<Bytes, BenchCallError> {
        let (response, mut sending) = self.begin(call.path).await?;
        sending.send_data(call.frame, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut frames = Frames::default();
        while let Some(chunk) = body.data().await {
            frames.push(&mut body, chunk?)?;
        }
        match body.trailers().await? {
            Some(trailers) => check(&trailers)?,
            None => check(&head.headers)?,
        }
        frames.next().ok_or(BenchCallError::InvalidResponse("no message"))
    }

    /// Makes a server-streaming call.
    pub(crate) async fn follow(&self, call: RpcCall) -> Result<StreamReceiver, BenchCallError> {
        let (response, mut sending) = self.begin(call.path).await?;
        sending.send_data(call.frame, true)?;
        Ok(StreamReceiver { state: ResponseState::Head(response), frames: Frames::default() })
    }

    /// Makes a bidirectional streaming call.
    pub(crate) async fn stream(
        &self,
        path: &'static str,
    ) -> Result<(StreamSender, StreamReceiver), BenchCallError> {
        let (response, sending) = self.begin(path).await?;
        let receiver =
            StreamReceiver { state: ResponseState::Head(response), frames: Frames::default() };
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
            .scheme(self.scheme)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .expect("each part is valid");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(requests.send_request(request, false)?)
    }
}

/// The request side of a stream, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct StreamSender(SendStream<Bytes>);

impl StreamSender {
    /// Queues a framed message.
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), BenchCallError> {
        Ok(self.0.send_data(frame, false)?)
    }
}

/// The response side of a stream.
#[derive(Debug)]
pub(crate) struct StreamReceiver {
    state: ResponseState,
    frames: Frames,
}

#[derive(Debug)]
enum ResponseState {
    /// The response headers are awaited.
    Head(ResponseFuture),
    Body(HeaderMap, RecvStream),
}

impl StreamReceiver {
    /// Receives the next message; `None` once the stream ended with status OK. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BenchCallError> {
        loop {
            if let Some(message) = self.frames.next() {
                return Ok(Some(message));
            }
            match &mut self.state {
                ResponseState::Head(response) => {
                    let (head, body) = response.await?.into_parts();
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

/// Splits received bytes into messages.
#[derive(Debug, Default)]
struct Frames {
    /// Nearly always whole messages, which are split off without a copy.
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

/// Checks the status in the trailers.
fn check(trailers: &HeaderMap) -> Result<(), BenchCallError> {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default().to_owned();
            Err(BenchCallError::Refused { code, message })
        }
        None => Err(BenchCallError::InvalidResponse("no status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_from_chunks_of_any_size() {
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
    fn error_status_has_the_message_of_the_server() {
        let mut trailers = HeaderMap::new();
        assert!(matches!(check(&trailers), Err(BenchCallError::InvalidResponse(_))));
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(check(&trailers).is_ok());
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        trailers.insert("grpc-message", HeaderValue::from_static("draining"));
        let error = check(&trailers).unwrap_err().to_string();
        assert_eq!(error, "returned status 14: draining");
    }
}
