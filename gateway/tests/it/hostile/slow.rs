//! Callers that hold a connection by sending nothing, or very little.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
    time::{sleep, timeout},
};

use crate::hostile::support::{
    caller,
    case::Outcome,
    frames::{self, Block},
    gateway::{BODY_SILENCE_MAX, start},
    upstream::{Counts, Upstream},
};

/// Between two bytes: many fit into the timeout.
const PAUSE: Duration = Duration::from_millis(50);

/// Sends `first` at once, then `rest` byte by byte, over and over; the gateway must close the
/// connection.
async fn is_closed(first: &[u8], rest: &[u8]) {
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    let (mut read, mut write) = TcpStream::connect(gateway.address()).await.unwrap().into_split();
    write.write_all(first).await.unwrap();
    let outcome = tokio::select! {
        () = dribble(&mut write, rest) => unreachable!("it never ends"),
        outcome = caller::outcome(&mut read) => outcome,
    };
    assert!(matches!(outcome, Outcome::Cut | Outcome::Answered(408)), "{outcome:?}");
    assert_eq!(upstream.counts(), Counts::default());
}

async fn dribble(write: &mut OwnedWriteHalf, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if write.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(PAUSE).await;
    }
    // Nothing is left to send, or the peer has closed: read the rest.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn silent_connection_is_closed() {
    is_closed(b"", b"").await;
}

#[tokio::test]
async fn connection_without_a_version_is_closed() {
    is_closed(b"P", b"").await;
    is_closed(b"PRI * HTTP/2.0\r\n\r\n", b"").await;
}

#[tokio::test]
async fn stalled_head_is_closed() {
    is_closed(b"GET /orders/7 HTTP/1.1\r\nHost: a\r\n", b"").await;
}

#[tokio::test]
async fn slow_head_is_closed() {
    is_closed(b"GET /orders/7 HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n").await;
    is_closed(b"", b"GET /orders/7").await;
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    let (mut read, mut write) = TcpStream::connect(gateway.address()).await.unwrap().into_split();
    let head = b"GET /orders/7 HTTP/1.1\r\nHost: a\r\n\r\nGET /orders/8";
    write.write_all(head).await.unwrap();
    assert_eq!(caller::outcome(&mut read).await, Outcome::Answered(200));
    assert_eq!(upstream.counts().whole, 1);
}

#[tokio::test]
async fn connection_without_streams_is_closed() {
    is_closed(&frames::opening(), b"").await;
}

#[tokio::test]
async fn endless_head_of_a_stream_is_closed() {
    let begun = frames::headers(&Block::get("/orders/7"), frames::END_STREAM);
    is_closed(&[frames::opening(), begun].concat(), b"").await;
}

#[tokio::test]
async fn caller_that_reads_nothing_is_closed() {
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    let mut caller = TcpStream::connect(gateway.address()).await.unwrap();
    caller.write_all(b"GET /orders/endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // The response stays unread until a failed write shows the end of the connection.
    let cut = async {
        while caller.write_all(b" ").await.is_ok() {
            sleep(PAUSE).await;
        }
    };
    timeout(caller::PATIENCE, cut).await.expect("it is left open");
}

#[tokio::test]
async fn slow_reader_is_not_closed() {
    let upstream = Upstream::start().await;
    let gateway = start(upstream.address()).await;
    let mut caller = TcpStream::connect(gateway.address()).await.unwrap();
    caller.write_all(b"GET /orders/endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut bytes = vec![0; 4 << 20];
    let began = std::time::Instant::now();
    while began.elapsed() < 4 * BODY_SILENCE_MAX {
        caller.read_exact(&mut bytes).await.unwrap();
        sleep(BODY_SILENCE_MAX / 4).await;
    }
}
