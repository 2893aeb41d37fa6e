//! Peers as every open port meets them: other protocols, half requests, names that they make up.

use std::{sync::{Arc, atomic::Ordering}, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use http::Request;
use prost::Message;
use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream, time::{sleep, timeout}};
use waypost_client::proto::{DeregisterRequest, HeartbeatRequest, ListServicesRequest, ResolveRequest, UpdateRequest, WatchRequest, discovery_client::DiscoveryClient};
use waypost_testing::{http2::{RawClient, framed, full}, registry::{connect, instance, register_request}, wait::soon};

use super::Soak;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest wait of the scanner for a response that may never come.
const PATIENCE: Duration = Duration::from_millis(200);

const METHODS: [&str; 12] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW", "PROPFIND",
    "get", "PRI",
];
const PATHS: [&str; 14] = [
    "/",
    "*",
    "/metrics",
    "/.env",
    "/../../etc/passwd",
    "/%00",
    "/%2e%2e/%2e%2e",
    "/waypost.v1.Registry/Register",
    "/waypost.v1.Registry/Nothing",
    "/waypost.v1.Discovery/Watch/",
    "//waypost.v1.Discovery/Resolve",
    "/grpc.health.v1.Health/Check",
    "/a?b=c#d",
    "http://elsewhere.invalid/",
];
const SERVICES: [&str; 6] = [
    "waypost.v1.Registry",
    "waypost.v1.Discovery",
    "waypost.v1.Admin",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "waypost.v1.Nothing",
];

/// Scans until the soak is over.
pub(super) async fn scan(soak: Arc<Soak>, seed: u64) {
    let mut random = Rng::with_seed(seed);
    while soak.goes_on() {
        match random.u8(..9) {
            0 => http_1(&soak, &mut random).await,
            1 => half_a_request(&soak, &mut random).await,
            2 => early_end(&soak, &mut random).await,
            3 => frames(&soak, &mut random).await,
            4 => unknown_methods(&soak, &mut random).await,
            5 => broken_messages(&soak, &mut random).await,
            6 => made_up_names(&soak, &mut random).await,
            7 => made_up_watch(&soak, &mut random).await,
            _ => large_heads(&soak, &mut random).await,
        }
        soak.scans.fetch_add(1, Ordering::Relaxed);
    }
}

/// A name that was never used.
fn made_up(random: &mut Rng) -> String {
    let length = random.usize(8..120);
    std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
}

async fn connect(soak: &Soak) -> TcpStream {
    soon("a connection", TcpStream::connect(soak.address)).await.expect("connected")
}

/// Writes, and reads what comes until the server closes or is silent. What comes is its own affair.
async fn exchange(soak: &Soak, bytes: &[u8]) {
    let mut stream = connect(soak).await;
    let _may_be_closed = timeout(PATIENCE, stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let _may_be_silent = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
}

async fn http_1(soak: &Soak, random: &mut Rng) {
    let method = METHODS[random.usize(..METHODS.len())];
    let path = PATHS[random.usize(..PATHS.len())];
    let version = ["1.1", "1.0", "0.9", "3.0"][random.usize(..4)];
    let host = made_up(random);
    let extra = [
        "",
        "content-length: 5\r\n",
        "content-length: -1\r\n",
        "transfer-encoding: chunked\r\n",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n",
        "no colon\r\n",
        "expect: 100-continue\r\ncontent-length: 9\r\n",
        "content-type: application/grpc\r\n",
    ][random.usize(..8)];
    let text = format!("{method} {path} HTTP/{version}\r\nhost: {host}\r\n{extra}\r\n");
    exchange(soak, text.as_bytes()).await;
}

/// A head that comes slowly and is never whole.
async fn half_a_request(soak: &Soak, random: &mut Rng) {
    let mut stream = connect(soak).await;
    let whole: &[u8] = if random.bool() { PREFACE } else { b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" };
    for byte in &whole[..random.usize(..whole.len())] {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(random.u64(..4))).await;
    }
    sleep(Duration::from_millis(random.u64(..200))).await;
}

/// A call whose caller does not wait for the answer.
async fn early_end(soak: &Soak, random: &mut Rng) {
    let mut stream = connect(soak).await;
    if random.bool() {
        // Closed with a reset, in spite of an answer on its way.
        stream.set_zero_linger().expect("an option of the socket");
    }
    let request = ResolveRequest { service: made_up(random), ..ResolveRequest::default() };
    let body = framed(&request.encode_to_vec());
    let mut bytes = [PREFACE, &frame(4, 0, 0, &[])].concat();
    // `:method POST`, `:scheme http`, and a path and a content type that are written out.
    let mut head = vec![0x83, 0x86];
    for (name, value) in
        [(":path", "/waypost.v1.Discovery/Resolve"), ("content-type", "application/grpc")]
    {
        for (index, text) in [name, value].into_iter().enumerate() {
            if index == 0 {
                head.push(0);
            }
            head.push(text.len() as u8);
            head.extend(text.bytes());
        }
    }
    for stream in 0..random.u32(1..60) {
        let id = 2 * stream + 1;
        bytes.extend(frame(1, 4, id, &head));
        match random.u8(..3) {
            0 => bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes())),
            1 => bytes.extend(frame(0, 1, id, &body)),
            _ => bytes.extend(frame(0, 0, id, &body[..3])),
        }
    }
    let end = random.usize(..=bytes.len());
    let _may_be_closed = stream.write_all(&bytes[..end]).await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Frames of all kinds, with lengths and flags that may or may not be right.
async fn frames(soak: &Soak, random: &mut Rng) {
    let mut bytes = PREFACE.to_vec();
    if random.bool() {
        bytes.extend(frame(4, 0, 0, &[]));
    }
    for _ in 0..random.usize(1..40) {
        let length = [0, 1, 4, 8, 9, 100, 16_384][random.usize(..7)];
        let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        let stream = [0, 1, 2, 3, 0x7fff_ffff][random.usize(..5)];
        bytes.extend(frame(random.u8(..14), random.u8(..), stream, &payload));
    }
    exchange(soak, &bytes).await;
}

async fn unknown_methods(soak: &Soak, random: &mut Rng) {
    let mut client = RawClient::connect(soak.address).await;
    for _ in 0..random.u8(1..20) {
        let path = match random.u8(..3) {
            0 => format!("/{}/{}", SERVICES[random.usize(..SERVICES.len())], made_up(random)),
            1 => format!("/{}/{}", made_up(random), made_up(random)),
            _ => format!("/{}", made_up(random)),
        };
        let kind =
            ["application/grpc", "application/grpc-web", "text/plain", ""][random.usize(..4)];
        let Ok(answer) = client.send(&path, kind, full(framed(b""))).await else { return };
        assert!(answer.body.len() < 4_096, "{path}: {} bytes", answer.body.len());
    }
}

/// Messages that are cut, longer than announced, or malformed.
async fn broken_messages(soak: &Soak, random: &mut Rng) {
    let mut client = RawClient::connect(soak.address).await;
    let methods = [
        "Registry/Register",
        "Registry/Heartbeat",
        "Registry/Update",
        "Registry/KeepAlive",
        "Discovery/Resolve",
        "Discovery/ListServices",
        "Admin/GetStatus",
    ];
    for _ in 0..random.u8(1..10) {
        let path = format!("/waypost.v1.{}", methods[random.usize(..methods.len())]);
        let length = random.usize(..2_000);
        let junk: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        let whole = framed(&register_request(instance("", "")).encode_to_vec());
        let body = match random.u8(..5) {
            // It announces 2 GiB.
            0 => Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]),
            1 => Bytes::from_static(&[1, 0, 0, 0, 1, 0]),
            2 => whole.slice(..random.usize(..whole.len())),
            3 => framed(&junk),
            _ => Bytes::from(junk),
        };
        if client.send(&path, "application/grpc", full(body)).await.is_err() {
            return;
        }
    }
}

/// Lookups and changes of what never was.
async fn made_up_names(soak: &Soak, random: &mut Rng) {
    let mut client = RawClient::connect(soak.address).await;
    for _ in 0..random.u8(1..40) {
        let (namespace, service, id) = (made_up(random), made_up(random), made_up(random));
        let lease_ids = vec![random.u64(..); random.usize(..100)];
        let (method, message) = match random.u8(..6) {
            0 => {
                let request = ResolveRequest { namespace, service, ..ResolveRequest::default() };
                ("Discovery/Resolve", request.encode_to_vec())
            }
            1 => {
                let page_token = made_up(random);
                let request =
                    ResolveRequest { service, page_token, page_size: 5, ..Default::default() };
                ("Discovery/Resolve", request.encode_to_vec())
            }
            2 => {
                let request = ListServicesRequest { namespace, ..ListServicesRequest::default() };
                ("Discovery/ListServices", request.encode_to_vec())
            }
            3 => ("Registry/Heartbeat", HeartbeatRequest { lease_ids }.encode_to_vec()),
            4 => {
                let request = DeregisterRequest { namespace, service, id, lease_id: 0 };
                ("Registry/Deregister", request.encode_to_vec())
            }
            _ => {
                let lease_id = random.u64(..);
                let request = UpdateRequest { lease_id, ..UpdateRequest::default() };
                ("Registry/Update", request.encode_to_vec())
            }
        };
        let path = format!("/waypost.v1.{method}");
        if client.send(&path, "application/grpc", full(framed(&message))).await.is_err() {
            return;
        }
    }
    for service in [made_up(random), made_up(random)] {
        // A `HealthCheckRequest` of that service.
        let message = [&[0x0a, service.len() as u8], service.as_bytes()].concat();
        for method in ["Check", "Watch"] {
            let path = format!("/grpc.health.v1.Health/{method}");
            let sent = client.send(&path, "application/grpc", full(framed(&message)));
            let _may_go_on = timeout(PATIENCE, sent).await;
        }
    }
}

/// Watches of what never was, left in the middle.
async fn made_up_watch(soak: &Soak, random: &mut Rng) {
    let mut discovery = DiscoveryClient::new(connect(soak.address).await);
    let mut open = Vec::new();
    for _ in 0..random.u8(1..12) {
        let count = random.usize(..60);
        let services = std::iter::repeat_with(|| made_up(random)).take(count).collect();
        let namespace = if random.bool() { made_up(random) } else { String::new() };
        let request = WatchRequest { namespace, services, ..WatchRequest::default() };
        let watch = soon("a watch", discovery.watch(request)).await.expect("a watch");
        let mut watch = watch.into_inner();
        if random.bool() {
            soon("a snapshot", watch.message()).await.expect("a snapshot");
        }
        if random.bool() {
            open.push(watch);
        }
    }
    sleep(Duration::from_millis(random.u64(..50))).await;
}

/// More header than any server takes.
async fn large_heads(soak: &Soak, random: &mut Rng) {
    let size = [1_000, 20_000, 200_000][random.usize(..3)];
    if random.bool() {
        let text = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(size));
        return exchange(soak, text.as_bytes()).await;
    }
    let mut client = RawClient::connect(soak.address).await;
    let mut request = Request::post(format!("http://{}/waypost.v1.Admin/GetStatus", soak.address));
    for number in 0..size / 1_000 {
        request = request.header(format!("x-{number}"), "y".repeat(1_000));
    }
    let request = request.body(full(framed(b""))).expect("a request");
    let _may_be_refused = client.request(request).await;
}
