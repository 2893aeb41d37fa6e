//! Connections over HTTP/1.1 and their reuse.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tonic::body::Body;
use tower::Service as _;
use waypost_client::{FailureKind, Instance, Service};

use super::{Behavior, Log, PATIENCE, channel, get, instance, post, served, text};

#[tokio::test]
async fn call_is_in_flight_until_its_response_is_read() {
    let log = Log::default();
    let service = Service::fixed([served("a", Behavior::Echo, &log).await]);
    let mut channel = service.http_channel().concurrency_limit(1);
    let answer = channel.call(post(b"four")).await.unwrap();
    assert_eq!(channel.call(get("/")).await.unwrap_err().kind(), FailureKind::LimitReached);
    assert_eq!(text(answer).await, "four");
    assert!(channel.call(get("/")).await.is_ok());
}

/// An instance that responds to each request with the number of its connection, and closes a
/// connection without notice after so many responses.
async fn numbered(answers: usize) -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                for _ in 0..answers {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", number % 10);
                    stream.write_all(answer.as_bytes()).await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    instance("numbered", port)
}

#[tokio::test]
async fn connection_is_reused_once_its_response_is_read() {
    let mut channel = channel([numbered(usize::MAX).await]);
    for _ in 0..10 {
        assert_eq!(text(channel.call(get("/")).await.unwrap()).await, "0");
    }
    let held = channel.call(get("/")).await.unwrap();
    assert_eq!(text(channel.call(get("/")).await.unwrap()).await, "1", "the first is in use");
    assert_eq!(text(held).await, "0");
    // The response is dropped unread: its bytes on the connection must not become the next one's.
    drop(channel.call(get("/")).await.unwrap());
    for _ in 0..10 {
        let connection = text(channel.call(get("/")).await.unwrap()).await;
        assert!(connection == "0" || connection == "1" || connection == "2", "{connection:?}");
    }
}

#[tokio::test]
async fn connection_closed_by_its_instance_fails_no_request() {
    let mut channel = channel([numbered(1).await]);
    for number in 0..20 {
        let answer = channel.call(get("/")).await.unwrap();
        assert_eq!(text(answer).await, (number % 10).to_string());
        // The end of the connection arrives a moment later.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn response_may_come_before_the_end_of_the_request() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Echo, &log).await]);
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    let frames = stream::unfold(frames, |mut frames: tokio::sync::mpsc::Receiver<Bytes>| async {
        Some((Ok::<_, Infallible>(Frame::data(frames.recv().await?)), frames))
    });
    let body = Body::new(StreamBody::new(Box::pin(frames)).map_err(|never| match never {}));
    let answer = channel.call(Request::post("/").body(body).unwrap()).await.unwrap();
    let mut body = answer.into_body();
    for word in ["one", "two", "three"] {
        sender.send(word.into()).await.unwrap();
        let frame = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(sender);
    assert!(timeout(PATIENCE, body.frame()).await.unwrap().is_none());
    assert_eq!(text(channel.call(post(b"four")).await.unwrap()).await, "four");
}

#[test]
fn connection_belongs_to_its_runtime() {
    let instances = runtime();
    let channel = channel([instances.block_on(numbered(usize::MAX))]);
    let ask = || async { text(channel.clone().call(get("/")).await.unwrap()).await };
    let (first, second) = (runtime(), runtime());
    assert_eq!(first.block_on(ask()), "0");
    assert_eq!(second.block_on(ask()), "1", "the first one's bytes are moved elsewhere");
    assert_eq!(first.block_on(ask()), "0");
    drop(first);
    assert_eq!(second.block_on(ask()), "1");
    assert_eq!(runtime().block_on(ask()), "2");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
