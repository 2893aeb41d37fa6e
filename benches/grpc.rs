//! The server over gRPC: a real server process and its load share this machine's cores over
//! loopback. Beside each figure stands the limit: a bare tonic server that answers messages of the
//! same sizes, measured in the same run. `cargo bench --bench grpc` (`-- --quick` for a moment's
//! run that measures nothing of worth).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark"
)]

mod support;

use std::{
    convert::Infallible,
    env,
    future::{Ready, ready},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{StreamExt, future::BoxFuture};
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use prost::Message;
use support::{A_SERVICE, CALLERS, CONNECTIONS, Process, spread};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, UnaryService},
    transport::Server,
};
use tower::Service;
use waypost_client::proto::{
    Cursor, Instance, RegisterRequest, RegisterResponse, ResolveRequest, ResolveResponse,
    discovery_client::DiscoveryClient, registry_client::RegistryClient,
};

const ROUNDS: usize = 3;
/// Services that are looked up.
const SERVICES: u64 = 200;
/// Instances that the memory of one is measured with.
const FILL: u64 = 100_000;

fn main() {
    if env::var_os("WAYPOST_BENCH_LIMIT").is_some() {
        Runtime::new().unwrap().block_on(serve_limit());
        return;
    }
    let quick = env::args().any(|argument| argument == "--quick" || argument == "--test");
    let (time, fill) =
        if quick { (Duration::from_millis(100), 2_000) } else { (Duration::from_secs(3), FILL) };
    Runtime::new().unwrap().block_on(measure(time, fill));
}

async fn measure(time: Duration, fill: u64) {
    let mut figures: [(&str, Vec<Figure>); 6] = [
        ("register, durable", Vec::new()),
        ("register, in memory", Vec::new()),
        ("register, limit", Vec::new()),
        ("... durable, one caller", Vec::new()),
        ("resolve 20 instances", Vec::new()),
        ("resolve, limit", Vec::new()),
    ];
    for _ in 0..ROUNDS {
        let (durable, limit) = (Process::waypost("disk"), limit());
        let in_memory = Process::waypost("memory");
        figures[0].1.push(load(&durable, time, Kind::Register, CALLERS).await);
        figures[1].1.push(load(&in_memory, time, Kind::Register, CALLERS).await);
        figures[2].1.push(load(&limit, time, Kind::Register, CALLERS).await);
        figures[3].1.push(load(&durable, time, Kind::Register, 1).await);
        figures[4].1.push(load(&durable, time, Kind::Resolve, CALLERS).await);
        figures[5].1.push(load(&limit, time, Kind::Resolve, CALLERS).await);
    }
    println!(
        "{CALLERS} callers on {CONNECTIONS} connections, {ROUNDS} rounds of {time:?}: median (least to most)"
    );
    for (name, figures) in &mut figures {
        let (rates, p50s, p99s) = (
            spread(figures.iter().map(|figure| figure.rate)),
            spread(figures.iter().map(|figure| figure.p50_ms)),
            spread(figures.iter().map(|figure| figure.p99_ms)),
        );
        println!("{name:24} {rates:>34}/s   p50 {p50s} ms   p99 {p99s} ms");
    }
    let mut memory: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        let (registered, looked_up) = fill_memory(fill).await;
        memory[0].push(registered);
        memory[1].push(looked_up);
    }
    let [registered, looked_up] = memory.map(|bytes| spread(bytes.into_iter()));
    println!(
        "memory an instance       {registered} B registered, {looked_up} B after lookups of all ({fill} instances)"
    );
}

struct Figure {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Register,
    Resolve,
}

/// A bare server that answers messages of the same sizes.
fn limit() -> Process {
    let mut child = Command::new(env::current_exe().unwrap())
        .env("WAYPOST_BENCH_LIMIT", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    Process::new(child, &address, TempDir::new().unwrap())
}

fn instance(index: u64) -> Instance {
    support::instance(&format!("service-{}", index / A_SERVICE), index)
}

fn registration(index: u64) -> RegisterRequest {
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    RegisterRequest { instance: Some(instance(index)), ttl, disconnect_grace: None }
}

/// What so many callers of one kind get done in the given time. Requests are encoded before it begins,
/// and of the answers only some are read: what is measured is the server, whose cores the callers
/// share.
async fn load(process: &Process, time: Duration, kind: Kind, callers: usize) -> Figure {
    let channels = process.connect().await;
    if matches!(kind, Kind::Resolve) {
        let mut client = RegistryClient::new(channels[0].clone());
        for index in 0..SERVICES * A_SERVICE {
            client.register(registration(index)).await.unwrap();
        }
    }
    let requests: Vec<Vec<Bytes>> =
        (0..callers).map(|caller| kind.requests(caller, time)).collect();
    let begin = Instant::now();
    let end = begin + time;
    let mut callers = Vec::new();
    for (caller, requests) in requests.into_iter().enumerate() {
        let channel = channels[caller % CONNECTIONS].clone();
        callers.push(tokio::spawn(async move {
            let mut client = tonic::client::Grpc::new(channel);
            let mut micros = Histogram::<u64>::new(3).unwrap();
            let mut sent = Instant::now();
            for request in requests.into_iter().cycle() {
                client.ready().await.unwrap();
                let answer = client.unary(Request::new(request), kind.path(), RawCodec).await;
                if micros.len().is_multiple_of(512) {
                    kind.check(answer.unwrap().into_inner());
                } else {
                    answer.unwrap();
                }
                let answered = Instant::now();
                micros.record((answered - sent).as_micros() as u64).unwrap();
                sent = answered;
                if sent >= end {
                    break;
                }
            }
            micros
        }));
    }
    let mut micros = Histogram::<u64>::new(3).unwrap();
    for caller in callers {
        micros.add(caller.await.unwrap()).unwrap();
    }
    let millis = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
    let rate = micros.len() as f64 / begin.elapsed().as_secs_f64();
    Figure { rate, p50_ms: millis(0.5), p99_ms: millis(0.99) }
}

impl Kind {
    /// What one caller sends, encoded: of registrations more than it can send in the given time, so
    /// that each is a new instance.
    fn requests(self, caller: usize, time: Duration) -> Vec<Bytes> {
        static NEXT: AtomicU64 = AtomicU64::new(1_000_000);
        match self {
            Self::Register => (0..(time.as_secs_f64() * 2_000.0) as usize)
                .map(|_| registration(NEXT.fetch_add(1, Ordering::Relaxed)))
                .map(|request| request.encode_to_vec().into())
                .collect(),
            Self::Resolve => (0..SERVICES)
                .map(|index| format!("service-{}", (index * 31 + caller as u64) % SERVICES))
                .map(|service| ResolveRequest { service, ..ResolveRequest::default() })
                .map(|request| request.encode_to_vec().into())
                .collect(),
        }
    }

    fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Register => "/waypost.v1.Registry/Register",
            Self::Resolve => "/waypost.v1.Discovery/Resolve",
        })
    }

    fn check(self, answer: Bytes) {
        match self {
            Self::Register => {
                assert_ne!(RegisterResponse::decode(answer).unwrap().lease_id, 0);
            }
            Self::Resolve => {
                let found = ResolveResponse::decode(answer).unwrap().instances;
                assert_eq!(found.len() as u64, A_SERVICE);
            }
        }
    }
}

/// Bytes that an instance adds to the server, registered, and after every service was looked up.
async fn fill_memory(fill: u64) -> (f64, f64) {
    let process = Process::waypost("disk");
    let channel = process.connect_once().await;
    let before = process.memory();
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let (mut client, next) = (RegistryClient::new(channel.clone()), Arc::clone(&next));
        callers.push(tokio::spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= fill {
                    break;
                }
                client.register(registration(index)).await.unwrap();
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let registered = process.memory();
    let mut client = DiscoveryClient::new(channel);
    for index in 0..fill / A_SERVICE {
        let service = format!("service-{index}");
        let request = ResolveRequest { service, ..ResolveRequest::default() };
        client.resolve(request).await.unwrap();
    }
    let looked_up = process.memory();
    let each = |bytes: u64| (bytes - before) as f64 / fill as f64;
    (each(registered), each(looked_up))
}

/// Answers every call with the same bytes: what of a call's cost is tonic's and the loopback's.
#[derive(Clone)]
struct Limit<const REGISTRY: bool>(Bytes);

impl NamedService for Limit<true> {
    const NAME: &'static str = "waypost.v1.Registry";
}

impl NamedService for Limit<false> {
    const NAME: &'static str = "waypost.v1.Discovery";
}

impl<const REGISTRY: bool> Service<http::Request<Body>> for Limit<REGISTRY> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = Answer(self.0.clone());
        Box::pin(async move { Ok(Grpc::new(RawCodec).unary(answer, request).await) })
    }
}

struct Answer(Bytes);

impl UnaryService<Bytes> for Answer {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}

/// Messages as bytes.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn serve_limit() {
    let history_id = "0190c5c2-7c1f-7a5e-9b1d-000000000000".to_owned();
    let cursor = Some(Cursor { history_id, revision: 7 });
    let whole = |index| Instance {
        namespace: "default".to_owned(),
        status: 2,
        weight: Some(100),
        created_revision: 1_000_000,
        modified_revision: 1_000_000,
        registered_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 1_000_000 }),
        ..instance(index)
    };
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let registered = RegisterResponse {
        instance: Some(whole(1_000_000)),
        lease_id: 1 << 60,
        ttl,
        heartbeat_interval: ttl,
        cursor: cursor.clone(),
    };
    let resolved = ResolveResponse { instances: (0..A_SERVICE).map(whole).collect(), cursor };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    Server::builder()
        .add_service(Limit::<true>(registered.encode_to_vec().into()))
        .add_service(Limit::<false>(resolved.encode_to_vec().into()))
        .serve_with_incoming(
            TcpListenerStream::new(listener)
                .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))),
        )
        .await
        .unwrap();
}
