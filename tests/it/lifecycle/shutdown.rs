//! Shutdown: every stream ends with a status, calls in flight finish.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tonic_types::StatusExt;
use waypost_client::proto::{
    KeepAliveRequest, WatchRequest, discovery_client::DiscoveryClient,
    registry_client::RegistryClient,
};
use waypost_testing::{
    http2::{RawBody, RawClient, framed},
    registry::{connect, instance, register, register_request},
    wait::soon,
    watch::Follower,
};

use crate::support::{TestServer, serve};

/// From the signal to the end of the process.
const END_MAX: Duration = Duration::from_secs(10);

fn is_draining(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some())
}

async fn watch_health(channel: Channel) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: "waypost.v1.Discovery".to_owned() };
    let opened = HealthClient::new(channel).watch(request).await.expect("health is told");
    let mut health = opened.into_inner();
    assert_eq!(next_health(&mut health).await, Ok(ServingStatus::Serving));
    health
}

async fn next_health(health: &mut Streaming<HealthCheckResponse>) -> Result<ServingStatus, Code> {
    let message = soon("a word on health", health.message()).await;
    let message = message.map_err(|status| status.code())?.expect("the stream has no end");
    Ok(message.status())
}

/// All kinds of connections and streams that may be open at a shutdown.
struct Open {
    watch: Follower,
    health: Streaming<HealthCheckResponse>,
    answers: Streaming<waypost_client::proto::KeepAliveResponse>,
    reflections: Streaming<tonic_reflection::pb::v1::ServerReflectionResponse>,
    /// Kept, so that the streams' requests do not end.
    _requests: (mpsc::Sender<KeepAliveRequest>, mpsc::Sender<ServerReflectionRequest>),
    _idle: Vec<Channel>,
    _half_open: Vec<TcpStream>,
}

impl Open {
    async fn everything(address: std::net::SocketAddr) -> Self {
        let channel = connect(address).await;
        let mut registry = RegistryClient::new(channel.clone());
        let lease_id = register(&mut registry, instance("orders", "a")).await.lease_id;
        let mut discovery = DiscoveryClient::new(connect(address).await);
        let watch = Follower::ready(&mut discovery, WatchRequest::default()).await;

        let (leases, outgoing) = mpsc::channel(1);
        let answers = registry.keep_alive(ReceiverStream::new(outgoing)).await.expect("open");
        let mut answers = answers.into_inner();
        leases.send(KeepAliveRequest { lease_ids: vec![lease_id] }).await.expect("sent");
        soon("an answer", answers.message()).await.expect("open").expect("an answer");

        let (questions, outgoing) = mpsc::channel(1);
        let mut reflection = ServerReflectionClient::new(connect(address).await);
        let reflections = reflection.server_reflection_info(ReceiverStream::new(outgoing));
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        questions.send(list).await.expect("sent");
        let mut reflections = reflections.await.expect("open").into_inner();
        soon("an answer", reflections.message()).await.expect("open").expect("an answer");

        let mut idle = Vec::new();
        for _ in 0..10 {
            idle.push(connect(address).await);
        }
        let silent = TcpStream::connect(address).await.expect("connected");
        let mut half = TcpStream::connect(address).await.expect("connected");
        half.write_all(b"PRI * HTTP/2.0\r\n").await.expect("sent");
        Self {
            watch,
            health: watch_health(channel).await,
            answers,
            reflections,
            _requests: (leases, questions),
            _idle: idle,
            _half_open: vec![silent, half],
        }
    }

    /// Every stream learns that the server ends, and none of them breaks.
    async fn ends(&mut self) {
        assert_eq!(next_health(&mut self.health).await, Ok(ServingStatus::NotServing));
        let end = self.watch.end().await;
        assert!(is_draining(&end), "the watch: {end:?}");
        let end = soon("the end", self.answers.message()).await.expect_err("an end");
        assert!(is_draining(&end), "the answers: {end:?}");
        let end = soon("the end", self.reflections.message()).await.expect_err("an end");
        assert!(is_draining(&end), "the reflections: {end:?}");
        let end = soon("the end", self.health.message()).await.expect_err("an end");
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    }
}

/// True where the server serves a new connection.
async fn serves(address: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let _sent = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _reset = soon("the end of a connection", stream.read_to_end(&mut answer)).await;
    !answer.is_empty()
}

async fn ends_well_after(signal: Signal) {
    let mut server = serve().start().await;
    let mut open = Open::everything(server.address()).await;
    assert!(serves(server.address()).await);
    server.signal(signal);
    let begun = Instant::now();
    open.ends().await;
    assert!(!serves(server.address()).await, "new connections are served after {signal:?}");
    let status = server.end().await;
    assert_eq!(status.code(), Some(0), "after {signal:?}: {status}");
    assert!(begun.elapsed() < END_MAX, "{signal:?} took {:?}", begun.elapsed());
    drop(open);
}

#[tokio::test]
async fn server_shuts_down_in_order_with_open_streams() {
    tokio::join!(ends_well_after(Signal::TERM), ends_well_after(Signal::INT));
}

#[tokio::test]
async fn draining_server_refuses_new_connections_at_once() {
    let server = serve().start().await;
    // Delays the server: a connection that has started and sends nothing more.
    let mut open = Open::everything(server.address()).await;
    server.signal(Signal::TERM);
    open.ends().await;
    // The listener is closed before the connections have ended, so that peers go elsewhere.
    let refused = async {
        while let Ok(mut stream) = TcpStream::connect(server.address()).await {
            // A connection accepted at the last moment is closed, not left waiting.
            let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0; 1])).await;
            assert!(read.is_ok(), "a new connection is taken and left without an answer");
        }
    };
    soon("refused connections", refused).await;
}

#[tokio::test]
async fn idle_server_shuts_down_at_once() {
    let mut server = serve().start().await;
    server.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(server.end().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_in_flight_finishes_and_no_new_one_starts() {
    let server = TestServer::start().await;
    let mut health = watch_health(server.channel()).await;
    let mut client = RawClient::connect(server.address()).await;
    let (parts, outgoing) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
    let body: RawBody = StreamBody::new(ReceiverStream::new(outgoing)).boxed_unsync();
    let message = framed(&register_request(instance("orders", "late")).encode_to_vec());
    let (first, second) = (message.slice(..10), message.slice(10..));
    parts.send(Ok(Frame::data(first))).await.expect("sent");
    let request =
        Request::post(format!("http://{}/waypost.v1.Registry/Register", server.address()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .expect("a request");
    let mut other = client.clone();
    let in_flight = tokio::spawn(async move { client.request(request).await });
    // Streams of a connection start in order: after this response, the other has started.
    while parts.capacity() < 4 {
        tokio::task::yield_now().await;
    }
    let resolve = "/waypost.v1.Discovery/ListServices";
    assert_eq!(other.grpc(resolve, framed(&[])).await.status().code(), Code::Ok);

    let mut discovery = server.discovery();
    let ended = server.ask_to_stop();
    assert_eq!(next_health(&mut health).await, Ok(ServingStatus::NotServing));
    let request = waypost_client::proto::ListServicesRequest::default();
    let refused = soon("a refusal", discovery.list_services(request)).await;
    // By the server, or by a client after GOAWAY.
    refused.expect_err("no new calls");
    parts.send(Ok(Frame::data(second))).await.expect("sent");
    drop(parts);
    let answer = soon("an answer", in_flight).await.expect("no panic").expect("an answer");
    assert_eq!(answer.status().code(), Code::Ok, "{:?}", answer.status());
    assert!(!answer.body.is_empty());
    drop((health, discovery, other));
    soon("the end", ended).await.expect("no panic").expect("it ends well");
}
