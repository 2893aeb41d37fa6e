//! Requests over HTTP/1.1 that are unusual, wrong, slow or incomplete.

use std::{io, net::SocketAddr, time::Duration};

use fastrand::Rng;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

use super::{exchange, http2::PREFACE, read_some, unknown_name};

/// Requests sent on one connection, at most.
const REQUESTS_MAX: u32 = 50;
const PAUSE_MS_MAX: u64 = 50;

const METHODS: [&str; 13] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "BREW", "TRACE", "CONNECT",
    "get", "X", "PRI",
];
const PATHS: [&str; 25] = [
    "/",
    "/.env",
    "/..%2f..%2fetc/passwd",
    "/../../etc/passwd",
    "/orders/../admin",
    "/orders/%2e%2e/%2e%2e/",
    "/a//b",
    "/%00",
    "/%zz",
    "/caf\u{e9}/\u{1f600}",
    "/?q=\"<script>\"",
    "/a?b=c#d",
    "//evil.example/x",
    "http://evil.example/x",
    "*",
    "evil.example:443",
    "/orders;v=1",
    "/a b",
    "/metrics",
    "/waypost.v1.Registry/Register",
    "/waypost.v1.Registry/Nothing",
    "/waypost.v1.Discovery/Watch/",
    "//waypost.v1.Discovery/Resolve",
    "/grpc.health.v1.Health/Check",
    "/%2e%2e/%2e%2e",
];
const FIELDS: [&str; 14] = [
    "Host: b",
    "Content-Length: 5",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Type: application/grpc",
    "Transfer-Encoding: gzip, chunked",
    "Connection: close, x-a",
    "Upgrade: h2c\r\nConnection: upgrade",
    "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABk",
    "Expect: 100-continue",
    "Cookie: a=b; c",
    "X-A : b",
    "no colon",
];

/// Requests services that do not exist, on one connection.
pub(super) async fn unknown_names(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for _ in 0..rng.u32(1..=REQUESTS_MAX) {
        let name = rng.u32(..);
        let head = format!("GET /x{name:x}/login HTTP/1.1\r\nHost: {name:x}.example\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        read_some(&mut stream).await?;
    }
    Ok(())
}

/// Sends a request of any kind, or the first part of one.
pub(super) async fn wild(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let method = METHODS[rng.usize(..METHODS.len())];
    let path = PATHS[rng.usize(..PATHS.len())];
    let version = if rng.u8(..4) == 0 { ["1.0", "0.9", "3.0"][rng.usize(..3)] } else { "1.1" };
    let mut head = format!("{method} {path} HTTP/{version}\r\nHost: {}\r\n", unknown_name(rng));
    for _ in 0..rng.usize(..4) {
        head += FIELDS[rng.usize(..FIELDS.len())];
        head += "\r\n";
    }
    if rng.u8(..20) == 0 {
        head += &format!("X-Large: {}\r\n", "x".repeat(rng.usize(..128 << 10)));
    }
    if rng.u8(..20) == 0 {
        head.extend((0..rng.usize(..300)).map(|field| format!("X-{field}: 1\r\n")));
    }
    head += "\r\nhello";
    let sent = if rng.bool() { head.len() } else { rng.usize(..head.len()) };
    exchange(address, &head.as_bytes()[..sent]).await
}

/// Sends a request in small pieces and gives up somewhere.
pub(super) async fn slow(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    const POST: &[u8] = b"POST /orders/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    let mut stream = TcpStream::connect(address).await?;
    let start = if rng.bool() { PREFACE } else { POST };
    let request = [start, &[b'x'; 20]].concat();
    let sent = if rng.bool() { request.len() } else { rng.usize(..request.len()) };
    for piece in request[..sent].chunks(rng.usize(1..40)) {
        stream.write_all(piece).await?;
        sleep(Duration::from_millis(rng.u64(..PAUSE_MS_MAX))).await;
    }
    Ok(())
}
