//! Requests that the HTTP library refuses before the gateway sees them: they have an id, a line in
//! the access log and a count in the metrics too.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Gateway, act, orders, soon};

async fn connect(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(gateway.running.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Everything received until the connection ends.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Requests that were refused without a service, as far as all gateways of this process go.
async fn counted(gateway: &Gateway) -> u64 {
    let metrics = gateway.operator("/metrics").await;
    let name = "waypost_gateway_requests_total{service=\"\",status=\"4xx\"} ";
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
    line.map_or(0, |count| count.parse().unwrap())
}

/// The status and the id of a response that must be a refusal.
fn refusal(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let field = |name: &str| {
        let value = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        value.unwrap_or_else(|| panic!("{name} in {head}")).to_owned()
    };
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(document["status"], status);
    assert_eq!(document["request_id"], field("x-request-id"));
    assert_eq!(field("content-type"), "application/problem+json");
    assert_eq!(field("content-length"), body.len().to_string());
    assert_eq!(field("connection"), "close");
    (status, field("x-request-id"))
}

#[tokio::test]
async fn request_refused_by_the_library_is_logged_and_counted() {
    let gateway = Gateway::new("").await;
    let _instance = orders(&gateway).await;
    let many = format!("GET /orders HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(120));
    let mut lines = 0;
    for (request, expected) in [
        ("GET /orders HTTP/9.9\r\nHost: a\r\n\r\n", 400),
        ("G(T /orders HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /orders HTTP/1.1\r\nno field\r\n\r\n", 400),
        ("GET /or\x7fders HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\x16\x03\x01\x00\x05hello\r\n\r\n", 400),
        (&*many, 431),
    ] {
        for before in ["", "GET /orders HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let counted_before = counted(&gateway).await;
            let mut stream = connect(&gateway).await;
            let sent = [before, request].concat();
            // The gateway may have read enough before all is written.
            let _enough = stream.write_all(sent.as_bytes()).await;
            let answers = rest(stream).await;
            let at = answers.rfind("HTTP/1.1 ").expect("an answer");
            assert_eq!(answers.matches("HTTP/1.1 ").count(), if before.is_empty() { 1 } else { 2 });
            let (status, id) = refusal(&answers[at..]);
            assert_eq!(status, expected, "{request}");
            lines += if before.is_empty() { 1 } else { 2 };
            gateway.told(lines).await;
            let line = gateway.line_of(&id).await;
            assert_eq!(line["status"], expected);
            assert_eq!(line["method"], "");
            assert!(line["problem"].as_str().unwrap().starts_with("Refused: "), "{line}");
            assert!(counted(&gateway).await > counted_before);
        }
    }
}

/// A response of an instance that looks like a refusal of the library, and is none.
#[tokio::test]
async fn bytes_of_instances_are_never_taken_for_a_refusal() {
    const LIKE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let gateway = Gateway::new("").await;
    let bare = async |_| {
        let answer = http::Response::builder().status(400).header("content-length", "0");
        Ok(answer.body(tonic::body::Body::empty()).unwrap())
    };
    let _bare = gateway.instance("bare", "a", bare).await;
    let _echo = gateway.instance("orders", "a", act::echo).await;
    let mut stream = connect(&gateway).await;
    let post =
        format!("POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{LIKE}", LIKE.len());
    let get = "GET /bare HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /bare HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for request in [&*post, get, &post, &post, get, get, last] {
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answers = rest(stream).await;
    assert_eq!(answers.matches(LIKE).count(), 3, "{answers}");
    assert!(!answers.contains("problem+json"), "{answers}");
    assert_eq!(gateway.told(7).await.len(), 7);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a request of HTTP/2, in literals.
fn request(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    frame(1, 5, stream, &block)
}

/// The frames of a stream until one ends it: kinds and payloads.
async fn frames(connection: &mut TcpStream, stream: u32) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        soon(connection.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        soon(connection.read_exact(&mut payload)).await.unwrap();
        if u32::from_be_bytes([head[5], head[6], head[7], head[8]]) == stream {
            let (kind, ends) = (head[3], head[4] & 1 == 1);
            frames.push((kind, payload));
            if ends || kind == 3 {
                return frames;
            }
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test]
async fn connection_survives_a_malformed_http_2_request() {
    let gateway = Gateway::new("").await;
    let _instance = orders(&gateway).await;
    let mut stream = connect(&gateway).await;
    stream.write_all(&[PREFACE, &frame(4, 0, 0, b"")].concat()).await.unwrap();
    let mut lines = 0;
    for (at, path) in
        ["/orders/<a>", "/orders?q=\"a\"", "/orders/a b", "/orders/`"].iter().enumerate()
    {
        let id = u32::try_from(at).unwrap() * 4 + 1;
        stream.write_all(&request(id, path)).await.unwrap();
        let answer = frames(&mut stream, id).await;
        assert_eq!((answer.len(), answer[0].0, answer[0].1[0]), (1, 1, 0x8c), "{path}");
        assert_eq!(frames(&mut stream, id).await, [(3, vec![0; 4])], "no error");
        stream.write_all(&request(id + 2, "/orders/7")).await.unwrap();
        let good = frames(&mut stream, id + 2).await;
        assert_eq!(good[0].0, 1);
        lines += 2;
        let told = gateway.told(lines).await;
        let line = told.iter().rfind(|line| line["status"] == 400).unwrap();
        assert_eq!(line["protocol"], "HTTP/2");
        let id = line["request_id"].as_str().unwrap();
        assert!(String::from_utf8_lossy(&answer[0].1).contains(id));
        assert_eq!(told.iter().filter(|line| line["status"] == 200).count(), lines / 2);
    }
}

#[tokio::test]
async fn http_2_connection_with_its_own_table_gets_a_reset() {
    let gateway = Gateway::new("").await;
    let mut stream = connect(&gateway).await;
    let settings = frame(4, 0, 0, &[0, 1, 0, 0, 0, 0]);
    stream.write_all(&[PREFACE, &settings, &request(1, "/orders/<a>")].concat()).await.unwrap();
    assert_eq!(frames(&mut stream, 1).await, [(3, vec![0, 0, 0, 1])]);
}
