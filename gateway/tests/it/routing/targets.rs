//! Targets with characters that should be encoded, which many clients send raw. Callers and
//! instances are bytes on sockets here: libraries refuse such targets.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use waypost_client::Registration;

use crate::support::{Gateway, act, soon};

/// The request lines and bodies that came to an instance.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// The head of a message, without line ends, and its body, by its length.
async fn message(stream: &mut BufReader<TcpStream>) -> Option<(Vec<String>, String)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some((lines, String::from_utf8(body).unwrap()))
}

/// An instance of `orders` that accepts every target.
async fn raw_orders(gateway: &Gateway) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut stream, log) = (BufReader::new(stream), Arc::clone(&log));
            tokio::spawn(async move {
                while let Some((mut lines, body)) = message(&mut stream).await {
                    log.lock().unwrap().push((lines.swap_remove(0), body));
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    gateway.registry.join(Registration::new("orders", "127.0.0.1", port).id("raw"));
    seen
}

async fn connect(gateway: &Gateway) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(gateway.running.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

/// The status of the next response on a connection.
async fn status(stream: &mut BufReader<TcpStream>) -> String {
    let (lines, _) = soon(message(stream)).await.expect("an answer");
    lines[0].split(' ').nth(1).unwrap().to_owned()
}

const TARGETS: [&str; 9] = [
    "/find?match[]={job=\"api\",code=~\"5..\"}",
    "/find?filter=<a>&b=%3Cc%3E",
    "/find?q=a>=b",
    "/a`b<c>d",
    "/a/<b>?q=\"<`>\"",
    "/a\"{}|^b?q={}|^`\\",
    "/?\"",
    "/7?q=\"%22\"&x=%zz",
    "/7?q=\"ü\"",
];

#[tokio::test]
async fn raw_characters_reach_the_instance_unchanged() {
    let gateway = Gateway::new(
        "implicit = true
        [[routes]]
        path = '/v1/orders'
        service = 'orders'
        rewrite = '/in'
        [[routes]]
        path = '/kept'
        service = 'orders'",
    )
    .await;
    let seen = raw_orders(&gateway).await;
    let mut stream = connect(&gateway).await;
    for target in TARGETS {
        for (prefix, replaced) in [("/orders", ""), ("/v1/orders", "/in"), ("/kept", "/kept")] {
            // With bodies, which hold the same and stay.
            for (method, body) in [("GET", ""), ("POST", "POST /<\"> HTTP/1.1\r\n\r\n")] {
                let length = body.len();
                let head = format!(
                    "{method} {prefix}{target} HTTP/1.1\r\nHost: a\r\nX: <\"`>\r\nContent-Length: {length}\r\n\r\n"
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                assert_eq!(status(&mut stream).await, "200", "{prefix}{target}");
                let expected = format!("{method} {replaced}{target} HTTP/1.1");
                let last = seen.lock().unwrap().pop().unwrap();
                assert_eq!(last, (expected, body.to_owned()));
            }
        }
    }
}

#[tokio::test]
async fn head_in_pieces_is_encoded_as_one() {
    let gateway = Gateway::new("").await;
    let seen = raw_orders(&gateway).await;
    let head = "GET /orders/<a>?q=\"b\" HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = connect(&gateway).await;
    for size in [1, 2, 7, 20] {
        for piece in head.as_bytes().chunks(size) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(status(&mut stream).await, "200");
        assert_eq!(seen.lock().unwrap().pop().unwrap().0, "GET /<a>?q=\"b\" HTTP/1.1");
    }
}

/// Behind pipelined requests and chunks, the start of a request is not certain.
#[tokio::test]
async fn bodies_are_never_encoded() {
    let gateway = Gateway::new("").await;
    let seen = raw_orders(&gateway).await;
    let raw = "GET /orders/<a> HTTP/1.1\r\nHost: a\r\n\r\n";
    let plain = "GET /orders/a HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = "POST /orders/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<b>\r\n0\r\n\r\n";
    for (first, second, statuses) in [
        (format!("{plain}{raw}"), "", ["200", "400"]),
        (format!("{raw}{raw}"), "", ["200", "400"]),
        (format!("{plain}{plain}"), raw, ["200", "200"]),
        (chunked.to_owned(), raw, ["200", "400"]),
    ] {
        let mut stream = connect(&gateway).await;
        stream.write_all(first.as_bytes()).await.unwrap();
        assert_eq!(status(&mut stream).await, statuses[0], "{first}");
        stream.write_all(second.as_bytes()).await.unwrap();
        assert_eq!(status(&mut stream).await, statuses[1], "{first}");
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(line, _)| line == "GET /<a> HTTP/1.1" || !line.contains('<')));
}

#[tokio::test]
async fn http2_instance_receives_the_encoded_form() {
    let config = "[[routes]]\npath = '/two'\nservice = 'orders'\nhttp2 = true";
    let gateway = Gateway::new(config).await;
    let instance = gateway.instance("orders", "a", act::echo).await;
    let mut stream = connect(&gateway).await;
    let head = "GET /two/<a>?q=\"b\" HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(soon(message(&mut stream)).await.unwrap().0[0], "HTTP/1.1 200 OK");
    assert_eq!(instance.last().path, "/two/%3Ca%3E?q=%22b%22");
}

/// Guards and routes see the encoded form.
#[tokio::test]
async fn path_rules_apply_to_raw_paths() {
    let gateway = Gateway::new("").await;
    let seen = raw_orders(&gateway).await;
    for target in ["/orders/<a>/../b", "/orders/<a>/%2e%2e/b", "/orders//<a>", "/orders/<a>%2fb"] {
        let mut stream = connect(&gateway).await;
        stream
            .write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(status(&mut stream).await, "400", "{target}");
    }
    assert!(seen.lock().unwrap().is_empty());
}
