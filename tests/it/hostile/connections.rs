//! Peers that use another protocol, send half a request, or send nothing.

use bytes::Bytes;
use http::Request;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use waypost::model::Limits;
use waypost_client::proto::{ResolveRequest, WatchRequest, discovery_client::DiscoveryClient};
use waypost_testing::{
    http2::{RawClient, framed, full},
    registry::{connect, instance, register, resolve_all},
    seed::seed,
    wait::soon,
};

use crate::support::TestServer;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const RESOLVE: &str = "/waypost.v1.Discovery/Resolve";

async fn open_socket(server: &TestServer) -> TcpStream {
    soon("a connection", TcpStream::connect(server.address())).await.expect("connected")
}

/// The bytes until the server closes the connection or stays silent.
async fn answer_to(server: &TestServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = open_socket(server).await;
    // The server may have closed already: then the bytes before count.
    let _sent = stream.write_all(bytes).await;
    let _sent = stream.shutdown().await;
    let mut answer = Vec::new();
    let _reset = soon("the end of a connection", stream.read_to_end(&mut answer)).await;
    answer
}

async fn populated() -> TestServer {
    let server = TestServer::start().await;
    register(&mut server.registry(), instance("kept", "a")).await;
    server
}

/// Earlier instances are there, and new peers are served.
async fn unharmed(server: &TestServer) {
    let mut discovery = DiscoveryClient::new(connect(server.address()).await);
    let answer = soon("an answer", resolve_all(&mut discovery, "kept")).await;
    assert_eq!(answer.instances.len(), 1);
    assert_eq!(server.status().await.revision, 1);
}

fn resolve_kept() -> Bytes {
    let request = ResolveRequest { service: "kept".into(), ..ResolveRequest::default() };
    framed(&request.encode_to_vec())
}

#[tokio::test]
async fn http_1_requests_get_http_1_responses() {
    let server = populated().await;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "HTTP/1.1 404"),
        ("GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.0 404"),
        ("HEAD / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "HTTP/1.1 404"),
        (
            "POST /waypost.v1.Discovery/Resolve HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 404",
        ),
        ("BREW /pot HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "HTTP/1.1 404"),
        (
            "GET /../../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 404",
        ),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nbroken header\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 "),
    ] {
        let answer = answer_to(&server, request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(expected), "{request:?}: {answer:?}");
    }
    unharmed(&server).await;
}

#[tokio::test]
async fn http_1_response_names_the_protocol_of_the_port() {
    let server = populated().await;
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = answer_to(&server, request).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert!(answer.contains("gRPC"), "{answer}");
}

#[tokio::test]
async fn endless_http_1_header_is_refused() {
    let server = populated().await;
    let mut request = b"GET / HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    for number in 0..20_000 {
        request.extend(format!("header-{number}: {}\r\n", "x".repeat(50)).bytes());
    }
    let answer = answer_to(&server, &request).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    unharmed(&server).await;
}

#[tokio::test]
async fn garbage_leaves_other_connections_working() {
    let server = populated().await;
    let mut random = fastrand::Rng::with_seed(seed());
    let mut openings: Vec<Vec<u8>> = vec![
        b"\0".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        b"\r\n\r\n\r\n".to_vec(),
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &[0xff; 64]].concat(),
        [PREFACE, b"GET / HTTP/1.1\r\n\r\n"].concat(),
        // A frame of settings that is too large, one on a stream, one of half a setting.
        [PREFACE, &[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0]].concat(),
        [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 1]].concat(),
        [PREFACE, &[0, 0, 3, 4, 0, 0, 0, 0, 0, 1, 2, 3]].concat(),
        // Data, a window and a reset for streams that are not open; headers that can't be read.
        [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 7]].concat(),
        [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 8, 0, 0, 0, 0, 9, 0, 0, 0, 0]].concat(),
        [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 9, 0, 0, 0, 0]].concat(),
        [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff]]
            .concat(),
    ];
    for _ in 0..100 {
        let mut bytes: Vec<u8> = (0..random.usize(1..2_000)).map(|_| random.u8(..)).collect();
        if random.bool() {
            bytes.splice(..0, PREFACE.iter().copied());
        }
        openings.push(bytes);
    }
    for opening in openings {
        answer_to(&server, &opening).await;
    }
    unharmed(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn half_open_connections_delay_no_call() {
    let server = populated().await;
    let mut half_open = Vec::new();
    for number in 0..200 {
        let mut stream = open_socket(&server).await;
        match number % 4 {
            0 => {}
            1 => stream.write_all(&PREFACE[..12]).await.expect("sent"),
            2 => stream.write_all(PREFACE).await.expect("sent"),
            _ => stream.write_all(b"GET / HTTP/1.1\r\nho").await.expect("sent"),
        }
        half_open.push(stream);
    }
    unharmed(&server).await;
    drop(half_open);
    unharmed(&server).await;
}

#[tokio::test]
async fn silent_connection_is_closed() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let server = TestServer::start_with(limits).await;
    // The server's own connection counts as one; these are the rest.
    let silent = (open_socket(&server).await, open_socket(&server).await);
    let mut discovery = DiscoveryClient::new(connect(server.address()).await);
    let answer = soon("a place", resolve_all(&mut discovery, "kept")).await;
    assert!(answer.instances.is_empty());
    for mut stream in [silent.0, silent.1] {
        let read = soon("the end of a silent connection", stream.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_resets_leave_other_connections_working() {
    let server = populated().await;
    for _ in 0..5 {
        let client = RawClient::connect(server.address()).await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..200 {
            let mut client = client.clone();
            let address = server.address();
            calls.spawn(async move {
                let path = if number % 2 == 0 { RESOLVE } else { "/waypost.v1.Discovery/Watch" };
                let request = Request::post(format!("http://{address}{path}"))
                    .header("content-type", "application/grpc")
                    .body(full(resolve_kept()))
                    .expect("a request");
                // Some get a response, most are reset before.
                let cut = tokio::time::timeout(
                    std::time::Duration::from_micros(number * 20),
                    client.request(request),
                );
                let _cut = cut.await;
            });
        }
        while calls.join_next().await.is_some() {}
    }
    unharmed(&server).await;
    let gone = async {
        while server.status().await.watchers != 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the watches that were reset", gone).await;
    server.stop().await;
}

#[tokio::test]
async fn connection_survives_broken_requests() {
    let server = populated().await;
    let mut client = RawClient::connect(server.address()).await;
    for (what, body) in [
        ("no message", Bytes::new()),
        ("half a header", Bytes::from_static(&[0, 0, 0])),
        ("less than announced", Bytes::from_static(&[0, 0, 0, 0, 9, 1, 2])),
        ("a text", Bytes::from_static(b"{\"service\": \"kept\"}")),
    ] {
        let answer = client.grpc(RESOLVE, body).await;
        assert_ne!(answer.status().code(), Code::Ok, "{what}");
        assert_eq!(answer.http, 200, "{what}");
    }
    let uri = format!("http://{}{RESOLVE}", server.address());
    let request = |method: &str| {
        Request::builder().method(method).uri(&uri).header("content-type", "application/grpc")
    };
    for (what, request) in [
        ("a GET", request("GET").body(full(Bytes::new()))),
        (
            "a compression",
            request("POST").header("grpc-encoding", "snappy").body(full({
                let mut body = resolve_kept().to_vec();
                body[0] = 1;
                body.into()
            })),
        ),
    ] {
        let answer = client.request(request.expect("a request")).await.expect("an answer");
        let refused = answer.status().code() != Code::Ok || !answer.http.is_success();
        assert!(refused, "{what}: {answer:?}");
    }
    for timeout in ["x", "1", "-1S", "99999999999999999999H", "1S\t"] {
        let request = request("POST").header("grpc-timeout", timeout).body(full(resolve_kept()));
        let answer = client.request(request.expect("a request")).await;
        assert!(answer.expect("an answer").http.is_success(), "{timeout:?}");
    }
    for (content_type, expected) in [("text/html", 404), ("application/json", 404), ("", 404)] {
        let answer = client.send(RESOLVE, content_type, full(resolve_kept())).await;
        assert_eq!(answer.expect("an answer").http, expected, "{content_type}");
    }
    let answer = client.grpc(RESOLVE, resolve_kept()).await;
    assert_eq!(answer.status().code(), Code::Ok);
    unharmed(&server).await;
}

#[tokio::test]
async fn connection_survives_a_header_over_the_limit() {
    let server = populated().await;
    let mut client = RawClient::connect(server.address()).await;
    let request = Request::post(format!("http://{}{RESOLVE}", server.address()))
        .header("content-type", "application/grpc")
        .header("padding", "x".repeat(1024 * 1024))
        .body(full(resolve_kept()))
        .expect("a request");
    if let Ok(answer) = client.request(request).await {
        assert!(!answer.http.is_success(), "{:?}", answer.http);
    }
    unharmed(&server).await;
}

#[tokio::test]
async fn watch_ends_with_its_connection() {
    let server = populated().await;
    for _ in 0..20 {
        let mut discovery = DiscoveryClient::new(connect(server.address()).await);
        let mut watch =
            discovery.watch(WatchRequest::default()).await.expect("the watch opens").into_inner();
        let first = soon("a snapshot", watch.message()).await.expect("a message");
        assert!(first.is_some());
    }
    let gone = async {
        while server.status().await.watchers != 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the watches", gone).await;
}
