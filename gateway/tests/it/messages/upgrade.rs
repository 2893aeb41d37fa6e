//! Connections that become something else: a WebSocket's bytes pass both ways.

use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;

use crate::support::{Acted, Gateway, Instance, Setup, soon, whole};

/// Accepts a WebSocket and echoes its bytes.
async fn take(mut request: Request<Incoming>) -> Acted {
    if !request.headers().contains_key(header::UPGRADE) {
        return Ok(Response::new(Body::empty()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let (mut read, mut write) = tokio::io::split(&mut stream);
        // Until either side closes.
        let _ended = tokio::io::copy(&mut read, &mut write).await;
        let _gone = write.shutdown().await;
    });
    Ok(switching())
}

fn switching() -> Response<Body> {
    let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let answer = answer.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
    answer.header("sec-websocket-accept", "yes").body(Body::empty()).unwrap()
}

fn asking() -> Request<Body> {
    let request = Request::get("/chat/room").header(header::CONNECTION, "keep-alive, Upgrade");
    let request = request.header(header::UPGRADE, "websocket").header("sec-websocket-key", "k");
    request.body(Body::empty()).unwrap()
}

/// A WebSocket through a gateway with this drain time.
async fn opened(drain: Duration) -> (Gateway, Instance, TokioIo<Upgraded>) {
    let gateway = Gateway::set_up(Setup { drain, ..Setup::default() }).await;
    let instance = gateway.instance("chat", "a", take).await;
    let mut answer = gateway.http1().send(asking()).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()[header::UPGRADE], "websocket");
    assert_eq!(answer.headers()["sec-websocket-accept"], "yes");
    let stream = TokioIo::new(soon(hyper::upgrade::on(&mut answer)).await.unwrap());
    (gateway, instance, stream)
}

async fn echo(stream: &mut TokioIo<Upgraded>, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = vec![0; text.len()];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(bytes, text.as_bytes());
}

#[tokio::test]
async fn websocket_bytes_pass_both_ways() {
    let (gateway, instance, mut stream) = opened(Duration::from_secs(20)).await;
    let seen = instance.last();
    assert_eq!(seen.path, "/room");
    assert_eq!(seen.header("sec-websocket-key"), Some("k"));
    for text in ["ping", "\0\u{1}binary", "a longer one than both of them before"] {
        echo(&mut stream, text).await;
    }
    // The end passes through, too.
    stream.shutdown().await.unwrap();
    assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0);
    let line = &gateway.told(1).await[0];
    assert_eq!((&line["status"], &line["instance"]), (&101.into(), &"a".into()));
}

#[tokio::test]
async fn websocket_ends_with_the_gateway() {
    let (gateway, _instance, mut stream) = opened(Duration::from_millis(50)).await;
    echo(&mut stream, "ping").await;
    soon(gateway.running.close()).await;
    let mut rest = Vec::new();
    // By force or not.
    let _ended = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn websocket_ends_with_its_instance() {
    let gateway = Gateway::new("").await;
    let _instance = gateway
        .instance("chat", "a", async |mut request: Request<Incoming>| {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                TokioIo::new(upgrade.await.unwrap()).write_all(b"bye").await.unwrap();
            });
            Ok(switching())
        })
        .await;
    let mut answer = gateway.http1().send(asking()).await;
    let mut stream = TokioIo::new(soon(hyper::upgrade::on(&mut answer)).await.unwrap());
    let mut said = String::new();
    soon(stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "bye");
}

#[tokio::test]
async fn other_upgrades_are_not_passed_on() {
    let gateway = Gateway::new("").await;
    let instance = gateway.instance("chat", "a", take).await;
    let mut request = asking();
    request.headers_mut().insert(header::UPGRADE, "h2c".parse().unwrap());
    let answer = whole(gateway.http1().send(request).await).await;
    assert_eq!(answer.status, 200);
    assert_eq!(instance.last().header("upgrade"), None);
}

/// Between requests the gateway looks for refusals of the HTTP library: a tunnel has none.
#[tokio::test]
async fn tunnel_bytes_are_not_inspected() {
    let (_gateway, _instance, mut stream) = opened(Duration::from_secs(20)).await;
    echo(&mut stream, "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await;
    echo(&mut stream, "GET /<a>?\"b\" HTTP/1.1\r\n\r\n").await;
}
