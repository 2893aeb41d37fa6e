//! Exchanges that one side ends early: refused uploads, callers that close their side or
//! disconnect.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tonic::body::Body;
use waypost_client::Registration;

use crate::support::{Acted, Gateway, act, pieces, soon, whole};

const REFUSAL: &str = "HTTP/1.1 413 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfull";

/// An instance of `orders` that refuses each request by its head, and closes with the rest unread.
async fn refusing(gateway: &Gateway) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                stream.write_all(REFUSAL.as_bytes()).await
            });
        }
    });
    gateway.registry.join(Registration::new("orders", "127.0.0.1", port));
}

async fn answers(_: Request<Incoming>) -> Acted {
    Ok(Response::builder().status(413).body(Body::new("full".to_owned())).unwrap())
}

/// Sends a request and all of its body before it reads anything, as simple callers do.
async fn send_all(gateway: &Gateway, path: &str, bytes: usize) -> String {
    let mut stream = TcpStream::connect(gateway.running.address()).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..bytes / 100_000 {
        stream.write_all(&[b'x'; 100_000]).await.expect("it may send all");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn upload_refused_by_its_instance_gets_the_refusal() {
    let config = "implicit = true\nlimits.body = 0\n[[routes]]\npath = '/new'\nservice = 'newer'\nhttp2 = true";
    let gateway = Gateway::new(config).await;
    refusing(&gateway).await;
    let _newer = gateway.instance("newer", "a", answers).await;
    for path in ["/orders", "/new"] {
        // More often than an instance may fail.
        for _ in 0..8 {
            let answer = soon(send_all(&gateway, path, 12_000_000)).await;
            assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("full"), "{answer}");
            let body = pieces(&[7; 10_000], 1_000);
            let answer = gateway.http2().send(Request::post(path).body(body).unwrap()).await;
            let answer = whole(answer).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (413, "full"), "{path}");
        }
    }
}

#[tokio::test]
async fn upload_refused_by_the_gateway_gets_the_refusal() {
    let gateway = Gateway::new("limits.body = '1KiB'").await;
    let _instance = gateway.instance("orders", "a", act::echo).await;
    for (path, status) in [("/orders", "413"), ("/nowhere", "404"), ("/orders//7", "400")] {
        let answer = soon(send_all(&gateway, path, 12_000_000)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

/// An instance of `orders` that reports when a request arrives and when its caller is gone, and
/// responds on permission.
async fn slow(gateway: &Gateway) -> (mpsc::UnboundedReceiver<&'static str>, watch::Sender<bool>) {
    struct Gone(mpsc::UnboundedSender<&'static str>);
    impl Drop for Gone {
        fn drop(&mut self) {
            let _heard = self.0.send("gone");
        }
    }
    let (told, events) = mpsc::unbounded_channel();
    let (release, released) = watch::channel(false);
    let act = move |request: Request<Incoming>| {
        let (told, mut released) = (told.clone(), released.clone());
        async move {
            let _gone = Gone(told.clone());
            told.send("come").unwrap();
            released.wait_for(|released| *released).await.unwrap();
            act::echo(request).await
        }
    };
    let instance = gateway.instance("orders", "a", act).await;
    tokio::spawn(async move {
        let _lives = instance;
        std::future::pending::<()>().await;
    });
    (events, release)
}

#[tokio::test]
async fn half_closed_caller_gets_its_response() {
    let gateway = Gateway::new("").await;
    let (mut events, release) = slow(&gateway).await;
    let requests = [
        "GET /orders HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /orders HTTP/1.0\r\nHost: a\r\n\r\n",
        "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        "POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ];
    for request in requests {
        release.send(false).unwrap();
        let mut stream = TcpStream::connect(gateway.running.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(soon(events.recv()).await, Some("come"));
        // The end has arrived by then: it came with the request.
        tokio::time::sleep(Duration::from_millis(150)).await;
        release.send(true).unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.contains(" 200 OK\r\n"), "{request:?} {answer}");
        assert_eq!(soon(events.recv()).await, Some("gone"));
    }
}

#[tokio::test]
async fn closed_connection_cancels_its_call() {
    let gateway = Gateway::new("limits.timeout = '60s'").await;
    let (mut events, _release) = slow(&gateway).await;
    // Bytes behind the request are not read before its response has ended.
    for (reset, behind) in [(true, ""), (false, ""), (false, "\r\n"), (false, "GET /orders")] {
        let mut stream = TcpStream::connect(gateway.running.address()).await.unwrap();
        stream.write_all(b"GET /orders HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(soon(events.recv()).await, Some("come"));
        stream.write_all(behind.as_bytes()).await.unwrap();
        if reset {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        assert_eq!(soon(events.recv()).await, Some("gone"), "{reset} {behind:?}");
    }
}
