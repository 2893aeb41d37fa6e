//! The gateway's own responses, and the connection after them.

use tempfile::TempDir;
use waypost_gateway::Running;

use crate::hostile::support::{
    caller::{hear, speak},
    case::{Case, Expected, Outcome},
    frames::{self, Block, END_HEADERS, END_STREAM, data, headers},
    gateway::{self, start_with},
    upstream::{Counts, Upstream},
};

const BODY_MAX: usize = 1024;

/// A gateway with a bound for bodies, and no other way than `/orders`.
async fn start(upstreams: &[Upstream]) -> (Running, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let config = "implicit = false\n[limits]\nbody = '1KiB'\n\
                  [[routes]]\npath = '/orders'\nservice = 'orders'\n\
                  policy = 'round-robin'\n";
    std::fs::write(&path, config).unwrap();
    let addresses: Vec<_> = upstreams.iter().map(Upstream::address).collect();
    (start_with(&addresses, Some(path)).await, directory)
}

/// The response to a request that must not reach an instance whole, after which the connection
/// ends.
async fn refused(line: &str, framing: &str, body: &str) -> String {
    let upstream = Upstream::start().await;
    let (gateway, _files) = start(std::slice::from_ref(&upstream)).await;
    let said = format!("{line} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
    let heard = hear(gateway.address(), said).await;
    assert_eq!(upstream.counts().whole, 0, "{line} {framing}");
    assert!(heard.contains("\r\nconnection: close\r\n"), "{heard}");
    assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{heard}");
    heard.split(' ').nth(1).unwrap().to_owned()
}

const SMUGGLED: &str = "GET /orders/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn body_over_the_limit_is_refused() {
    let long = "x".repeat(BODY_MAX + 1);
    let length = format!("Content-Length: {}", long.len());
    let chunked = format!("{:x}\r\n{long}\r\n0\r\n\r\n{SMUGGLED}", long.len());
    let chunks = format!("{}0\r\n\r\n{SMUGGLED}", "1\r\nx\r\n".repeat(long.len()));
    assert_eq!(refused("POST /orders/7", &length, &format!("{long}{SMUGGLED}")).await, "413");
    assert_eq!(refused("POST /orders/7", &length, "").await, "413");
    for chunks in [chunked, chunks] {
        assert_eq!(refused("POST /orders/7", "Transfer-Encoding: chunked", &chunks).await, "413");
        assert_eq!(refused("GET /orders/7", "Transfer-Encoding: chunked", &chunks).await, "413");
    }
}

/// No way around the bounds: over HTTP/1 nothing is a call of gRPC.
#[tokio::test]
async fn body_limit_applies_to_every_framing() {
    let framing = format!("Content-Type: application/grpc\r\nContent-Length: {}", BODY_MAX + 1);
    assert_eq!(refused("POST /orders/7", &framing, "").await, "413");
}

#[tokio::test]
async fn body_at_the_limit_passes() {
    let upstream = Upstream::start().await;
    let (gateway, _files) = start(std::slice::from_ref(&upstream)).await;
    let body = "x".repeat(BODY_MAX);
    for framed in [
        format!("Content-Length: {BODY_MAX}\r\n\r\n{body}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{BODY_MAX:x}\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let head = "POST /orders/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        let heard = hear(gateway.address(), format!("{head}{framed}")).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        assert_eq!(upstream.take()[0].body, body);
    }
}

#[tokio::test]
async fn stream_over_the_limit_is_refused() {
    let upstream = Upstream::start().await;
    let (gateway, _files) = start(std::slice::from_ref(&upstream)).await;
    let long = vec![b'x'; BODY_MAX + 1];
    let post = Block::request("POST", "/orders/7");
    let length = post.clone().field("content-length", long.len().to_string());
    for block in [post, length] {
        let stream = [headers(&block, END_HEADERS), data(&long, END_STREAM)].concat();
        let bytes = [frames::opening(), stream].concat();
        let case = Case::new("a stream", bytes, Expected::Status(413));
        assert_eq!(speak(gateway.address(), &case).await, Outcome::Answered(413));
        assert_eq!(upstream.counts().whole, 0);
    }
}

#[tokio::test]
async fn stalled_body_is_refused() {
    for (framing, body) in [
        ("Content-Length: 5", ""),
        ("Content-Length: 5", "he"),
        ("Transfer-Encoding: chunked", ""),
        ("Transfer-Encoding: chunked", "5\r\nhe"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
    ] {
        for line in ["POST /orders/7", "GET /orders/7"] {
            assert_eq!(refused(line, framing, body).await, "408", "{line} {framing} {body:?}");
        }
    }
    assert!(gateway::BODY_SILENCE_MAX > gateway::HEAD_TIMEOUT, "neither stands for the other");
}

#[tokio::test]
async fn unread_body_ends_the_connection() {
    for (framing, body) in [
        ("Content-Length: 100000", ""),
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", ""),
    ] {
        assert_eq!(refused("POST /nowhere", framing, body).await, "404");
        assert_eq!(refused("POST /orders//7", framing, body).await, "400");
    }
}

/// A caller that sends half of a body must not make an instance count as failed.
#[tokio::test]
async fn broken_body_does_not_count_against_the_instance() {
    let upstreams = [Upstream::start().await, Upstream::start().await];
    let (gateway, _files) = start(&upstreams).await;
    let head = "POST /orders/7 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for _ in 0..40 {
        let heard = hear(gateway.address(), format!("{head}5\r\nhello\r\nx\r\n")).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{heard}");
    }
    let get = "GET /orders/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for _ in 0..10 {
        assert!(hear(gateway.address(), get).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(upstreams.map(|upstream| upstream.counts().whole), [5, 5]);
}

#[tokio::test]
async fn options_asterisk_is_served_by_the_gateway() {
    let upstream = Upstream::start().await;
    let (gateway, _files) = start(std::slice::from_ref(&upstream)).await;
    let line = "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let heard = hear(gateway.address(), line).await;
    assert!(heard.starts_with("HTTP/1.1 204"), "{heard}");
    assert!(
        heard.contains("\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"),
        "{heard}"
    );
    assert_eq!(upstream.counts(), Counts::default());
}

#[tokio::test]
async fn unrequested_upgrade_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = gateway::start(upstream.address()).await;
    let head = "GET /orders/switched HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let heard = hear(gateway.address(), head).await;
    assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
    assert!(!heard.contains("upgrade"), "{heard}");
}

#[tokio::test]
async fn response_trailers_are_filtered() {
    let upstream = Upstream::start().await;
    let gateway = gateway::start(upstream.address()).await;
    let head =
        "GET /orders/trailed HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
    let heard = hear(gateway.address(), head).await;
    let (_, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(body.contains("served") && body.contains("x-checksum: 7"), "{body}");
    assert!(!body.contains("x-forwarded-for") && !body.contains("x-waypost-subject"), "{body}");
}
