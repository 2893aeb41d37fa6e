//! Idle connections, of which hardly more than the socket is kept.

use std::time::Duration;

use http::Response;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::sleep,
};

use crate::support::{Gateway, Setup, full, orders, soon};

/// Longer than a connection has to have no request before it rests.
const REST: Duration = Duration::from_millis(500);

const OK: &str = "http/1.1 200 ok";
const ASKED: &[u8] = b"GET /orders/7 HTTP/1.1\r\nHost: gateway\r\n\r\n";

/// One response with a length: its head, and the length of its body.
async fn heard(stream: &mut BufReader<TcpStream>) -> (String, usize) {
    let (mut lines, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        assert_ne!(soon(stream.read_line(&mut line)).await.unwrap(), 0, "after {lines:?}");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length: ").map_or(length, |it| it.parse().unwrap());
        lines.push(line);
    }
    let mut body = vec![0; length];
    soon(stream.read_exact(&mut body)).await.unwrap();
    (lines.swap_remove(0), length)
}

async fn connect(gateway: &Gateway) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(gateway.running.address()).await.unwrap())
}

#[tokio::test]
async fn idle_connection_is_served_again() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    let mut stream = connect(&gateway).await;
    for count in 1..=5 {
        stream.write_all(ASKED).await.unwrap();
        assert_eq!(heard(&mut stream).await.0, OK);
        assert_eq!(instance.seen().len(), count);
        sleep(REST).await;
    }
}

#[tokio::test]
async fn head_in_pieces_is_read_completely() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    let mut stream = connect(&gateway).await;
    // The second one starts with the first one, and ends after the idle time.
    let (begin, end) = ASKED.split_at(20);
    stream.write_all(&[ASKED, begin].concat()).await.unwrap();
    assert_eq!(heard(&mut stream).await.0, OK);
    sleep(REST).await;
    stream.write_all(end).await.unwrap();
    assert_eq!(heard(&mut stream).await.0, OK);
    assert_eq!(instance.seen().len(), 2);
}

#[tokio::test]
async fn slow_reader_gets_everything() {
    const SIZE: usize = 32 << 20;
    let gateway = Gateway::new("").await;
    let _instance =
        gateway.instance("orders", "a", async |_| Ok(Response::new(full("a".repeat(SIZE))))).await;
    let mut stream = connect(&gateway).await;
    for _ in 0..3 {
        stream.write_all(ASKED).await.unwrap();
        sleep(REST).await;
        assert_eq!(heard(&mut stream).await, (OK.into(), SIZE));
    }
}

#[tokio::test]
async fn idle_connection_ends_with_the_gateway() {
    let drain = Duration::from_millis(200);
    let gateway = Gateway::set_up(Setup { drain, ..Setup::default() }).await;
    let _instance = orders(&gateway).await;
    let mut stream = connect(&gateway).await;
    let mut silent = connect(&gateway).await;
    stream.write_all(ASKED).await.unwrap();
    assert_eq!(heard(&mut stream).await.0, OK);
    sleep(REST).await;
    soon(gateway.running.close()).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
}
