//! Callers that are merely unusual. Their requests reach the instance once, as they were meant.

use bytes::Bytes;
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::hostile::support::{
    caller::{self, PATIENCE, statuses},
    case::{Case, Expected, Outcome},
    frames::{self, Block, END_HEADERS, END_STREAM, data, headers},
    gateway::start,
    upstream::{Seen, Upstream},
};

/// The requests that reach the instance, and the statuses of the responses, for bytes over HTTP/1.
/// Connections need not stay open.
async fn ask(bytes: &[u8], answers: usize) -> (Vec<Seen>, Vec<u16>) {
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut read = Vec::new();
    let answered = async {
        while statuses(&read).len() < answers {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("an answer in time");
    (upstream.take(), statuses(&read))
}

/// Sends a request that must reach the instance with this target and body.
async fn passes(bytes: impl AsRef<[u8]>, target: &str, body: &str) -> Seen {
    let (mut seen, statuses) = ask(bytes.as_ref(), 1).await;
    let said = String::from_utf8_lossy(bytes.as_ref());
    assert_eq!(statuses, [200], "{said}");
    assert_eq!(seen.len(), 1, "{said}");
    let seen = seen.remove(0);
    assert_eq!(seen.target, target, "{said}");
    assert_eq!(seen.body, Bytes::copy_from_slice(body.as_bytes()), "{said}");
    seen
}

async fn head_passes(line: &str, target: &str, fields: &str) -> Seen {
    passes(format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), target, "").await
}

#[tokio::test]
async fn unusual_targets_pass_unchanged() {
    for target in [
        "/7",
        "/",
        "/7/",
        "/M%C3%BCnchen",
        "/%F0%9F%9A%80/%e6%9d%b1",
        "/7;v=1;w=2/x;y",
        "/a+b/a%20b",
        "/~user/%7Euser",
        "/.well-known/..hidden/a..b",
        "/100%25",
        "/c%23/what%3F",
        "/(1)!*'$&,=:@-_",
        "/7?",
        "/7?q=a%2Fb%5C..%2F&x=/../y",
        "/7?q=%zz&100%",
        "/7?next=https://b.example//x?y=z",
        "/7?a[]=1&b={2}|3",
    ] {
        head_passes(&format!("GET /orders{target}"), target, "").await;
    }
}

#[tokio::test]
async fn long_targets_pass() {
    let target = format!("/7?q={}", "x".repeat(12 * 1024));
    head_passes(&format!("GET /orders{target}"), &target, "").await;
}

#[tokio::test]
async fn common_methods_pass() {
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let seen = head_passes(&format!("{method} /orders/7"), "/7", "Content-Length: 0\r\n").await;
        assert_eq!(seen.method.as_str(), method);
    }
    assert_eq!(head_passes("HEAD /orders/7", "/7", "").await.method, Method::HEAD);
}

#[tokio::test]
async fn unusual_fields_pass() {
    for fields in [
        "Connection: close\r\n",
        "Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n",
        "Connection: TE, close\r\nTE: trailers\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAI\r\n",
        "Connection: TE\r\nTE: trailers, deflate;q=0.5\r\n",
        "TE: gzip\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "X_Api_Key: 7\r\n",
        "api_key: 7\r\n",
        "Range: bytes=0-1, 2-3, -5\r\n",
        "X-Empty:\r\n",
        "X-Tab:\ta\tb\t\r\n",
        "Accept: a/b\r\nAccept: c/d\r\n",
        "Content-Length: 0\r\n",
        "Max-Forwards: 5\r\n",
        "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n",
        "Via: 1.1 proxy.example (proxy)\r\n",
    ] {
        head_passes("GET /orders/7", "/7", fields).await;
    }
    head_passes("GET /orders/7", "/7", &"X: y\r\n".repeat(79)).await;
    head_passes("GET /orders/7", "/7", &format!("X: {}\r\n", "y".repeat(16 * 1024))).await;
}

#[tokio::test]
async fn hop_by_hop_fields_are_dropped() {
    let fields = "Connection: close, X-Hop, x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Stays: 3\r\n\
                  TE: deflate, trailers;q=0.5, TRAILERS\r\nKeep-Alive: timeout=5\r\n";
    let seen = head_passes("GET /orders/7", "/7", fields).await;
    for name in ["x-hop", "x-other", "keep-alive"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["x-stays"], "3");
    let line = "GET /orders/7 HTTP/1.0\r\nHost: a\r\nTE: trailers, gzip\r\n\r\n";
    assert!(!passes(line, "/7", "").await.headers.contains_key("te"));
}

#[tokio::test]
async fn fields_keep_their_bytes() {
    let head = b"GET /orders/7 HTTP/1.1\r\nHost: a\r\nX-Name: M\xfcnchen\r\n\r\n";
    let seen = passes(head, "/7", "").await;
    assert_eq!(seen.headers["x-name"].as_bytes(), b"M\xfcnchen");
}

#[tokio::test]
async fn unusual_hosts_pass() {
    for host in ["shop.example:8443", "SHOP.example.", "10.0.0.1", "[2001:db8::1]:80", "my_shop"] {
        passes(format!("GET /orders/7 HTTP/1.1\r\nHost: {host}\r\n\r\n"), "/7", "").await;
    }
}

#[tokio::test]
async fn absolute_form_passes() {
    let head = "GET http://a:80/orders/7?x HTTP/1.1\r\nHost: a:80\r\n\r\n";
    assert_eq!(passes(head, "/7?x", "").await.headers["host"], "a:80");
}

#[tokio::test]
async fn http_1_0_passes() {
    passes("GET /orders/7 HTTP/1.0\r\n\r\n", "/7", "").await;
    passes("GET /orders/7 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "/7", "").await;
    passes("POST /orders/7 HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "/7", "hello").await;
}

#[tokio::test]
async fn bodies_pass() {
    let lengths = "Content-Length: 5\r\n\r\nhello";
    let chunks =
        "Transfer-Encoding: Chunked\r\n\r\n2;x=y;z=\"1\"\r\nhe\r\n003\r\nllo\r\n0\r\nX: y\r\n\r\n";
    for body in [lengths, chunks] {
        for method in ["POST", "GET", "DELETE"] {
            let head = format!("{method} /orders/7 HTTP/1.1\r\nHost: a\r\n{body}");
            passes(head, "/7", "hello").await;
        }
    }
}

#[tokio::test]
async fn expect_continue_passes() {
    let head = "POST /orders/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\n";
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut read = vec![0; interim.len()];
    timeout(PATIENCE, stream.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, interim);
    stream.write_all(b"hello").await.unwrap();
    let mut line = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut line)).await.unwrap().unwrap();
    assert_eq!(&line, b"HTTP/1.1 200");
    assert_eq!(upstream.take()[0].body, "hello");
}

#[tokio::test]
async fn pipelined_requests_pass_in_order() {
    let row = "POST /orders/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
               \r\nGET /orders/2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (seen, statuses) = ask(row.as_bytes(), 2).await;
    assert_eq!(statuses, [200, 200]);
    assert_eq!([&*seen[0].target, &*seen[1].target], ["/1", "/2"]);
}

/// Heads that hyper reads in one of two ways. The instance must get the plain form.
#[tokio::test]
async fn normalized_requests_are_forwarded_in_plain_form() {
    passes("GET /orders/7 HTTP/1.1\nHost: a\n\n", "/7", "").await;
    passes("\r\n\nGET /orders/7 HTTP/1.1\r\nHost: a\r\n\r\n", "/7", "").await;
    head_passes("GET /orders/7#/../admin", "/7", "").await;
    head_passes("GET /orders/7?x#y", "/7?x", "").await;
    let twice = "POST /orders/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
                 Content-Length: 05\r\n\r\nhello";
    let seen = passes(twice, "/7", "hello").await;
    assert_eq!(seen.headers.get_all("content-length").iter().count(), 1);
}

/// RFC 9112, 6.3: the coding counts, the length is dropped, and the connection ends.
#[tokio::test]
async fn length_beside_a_coding_smuggles_nothing() {
    let smuggled = "GET /orders/smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: +5\r\n\r\n",
    ] {
        let upstream = Upstream::start().await;
        let gateway = start(upstream.address()).await;
        let head = "POST /orders/7 HTTP/1.1\r\nHost: a\r\n";
        let bytes = format!("{head}{framing}5\r\nhello\r\n0\r\n\r\n{smuggled}");
        let case = Case::new("a length beside a coding", bytes, Expected::Status(200));
        assert_eq!(
            caller::speak(gateway.address(), &case).await,
            Outcome::Answered(200),
            "{framing}"
        );
        let seen = upstream.take();
        assert_eq!(seen.len(), 1, "{framing}");
        assert_eq!(seen[0].body, "hello");
        assert!(!seen[0].headers.contains_key("content-length"));
    }
}

/// The request of a stream over HTTP/2 that reaches the instance.
async fn stream_passes(stream: Vec<u8>) -> Seen {
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    let bytes = [frames::opening(), stream].concat();
    let case = Case::new("a stream", bytes, Expected::Status(200));
    assert_eq!(caller::speak(gateway.address(), &case).await, Outcome::Answered(200));
    upstream.take().remove(0)
}

#[tokio::test]
async fn streams_pass() {
    let block = Block::get("/orders/7?x=y").field("te", "trailers").field("host", "A");
    let seen = stream_passes(headers(&block, END_HEADERS | END_STREAM)).await;
    assert_eq!(seen.target, "/7?x=y");
    assert_eq!(seen.headers["host"], "a");
    let post = Block::request("POST", "/orders/7").field("content-length", "5");
    for block in [post, Block::request("POST", "/orders/7")] {
        let stream = [headers(&block, END_HEADERS), data(b"hello", END_STREAM)].concat();
        assert_eq!(stream_passes(stream).await.body, "hello");
    }
}

#[tokio::test]
async fn cookies_of_a_stream_are_joined() {
    let block = Block::get("/orders/7").field("cookie", "a=1").field("cookie", "b=2");
    let seen = stream_passes(headers(&block, END_HEADERS | END_STREAM)).await;
    let cookies: Vec<_> = seen.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
}

/// Browsers split a cookie of many pairs into as many fields.
#[tokio::test]
async fn cookie_crumbs_count_as_one_field() {
    for crumbs in [79, 80, 300] {
        let pairs: Vec<_> = (0..crumbs).map(|number| format!("k{number}=v")).collect();
        let mut block = Block::get("/orders/7").field("x-own", "1");
        for pair in &pairs {
            block = block.field("cookie", pair.clone());
        }
        let seen = stream_passes(headers(&block, END_HEADERS | END_STREAM)).await;
        assert_eq!(seen.headers["cookie"], pairs.join("; "));
        assert_eq!(seen.headers.get_all("cookie").iter().count(), 1);
    }
}
