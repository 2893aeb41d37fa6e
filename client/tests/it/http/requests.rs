//! Requests: routing, retries, timeouts, upgrades.

use std::time::Duration;

use http::{StatusCode, Version, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tower::Service as _;
use waypost_client::{CallTimeout, FailureKind, ServedBy, Service};

use super::{Behavior, Log, PATIENCE, channel, get, post, served, text, timed};
use crate::support::gone;

#[tokio::test]
async fn request_reaches_an_instance_unchanged() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Echo, &log).await]);
    let mut request = post(b"four");
    *request.uri_mut() = "http://gateway/v1/orders?id=7".parse().unwrap();
    request.headers_mut().insert(header::HOST, "orders.internal".parse().unwrap());
    request.extensions_mut().insert(CallTimeout(Duration::from_secs(60)));
    let answer = channel.call(request).await.unwrap();
    let by = answer.extensions().get::<ServedBy>().unwrap();
    assert_eq!((by.instance().id.as_str(), by.attempts()), ("a", 1));
    assert_eq!(text(answer).await, "four");
    let seen = &log.all()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/orders?id=7"));
    assert_eq!(seen.headers[header::HOST], "orders.internal");
    assert_eq!(seen.version, Version::HTTP_11);
    let left: u64 = seen.headers["x-waypost-timeout-ms"].to_str().unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    assert!(!seen.headers.contains_key("x-waypost-previous-attempts"));
}

#[tokio::test]
async fn http2_to_instances_can_be_chosen() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Echo, &log).await]).http2();
    let answer = channel.call(post(b"four")).await.unwrap();
    assert_eq!(text(answer).await, "four");
    assert_eq!(log.all()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn instance_that_refuses_connections_fails_no_request() {
    let log = Log::default();
    let (gone, _socket) = gone();
    for http2 in [false, true] {
        let channel = channel([gone.clone(), served("a", Behavior::Echo, &log).await]);
        let mut channel = if http2 { channel.http2() } else { channel };
        for _ in 0..200 {
            let answer = channel.call(post(b"once")).await.unwrap();
            assert_eq!(text(answer).await, "once");
        }
    }
    assert_eq!(log.at(), ["a"; 400]);
}

#[tokio::test]
async fn request_that_may_have_been_served_is_retried_only_if_allowed() {
    let log = Log::default();
    let instances =
        [served("a", Behavior::Die, &log).await, served("b", Behavior::Die, &log).await];
    let mut once = channel(instances);
    let failed = once.call(post(b"pay")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::ConnectionLost, 1));
    assert_eq!(failed.instance().unwrap().id, log.at()[0]);
    let mut again = once.clone().retry_idempotent(3);
    let failed = again.call(get("/")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::ConnectionLost, 3));
    let seen = log.all();
    assert_eq!(seen.len(), 4);
    let attempts = seen.iter().map(|seen| seen.headers.get("x-waypost-previous-attempts"));
    let attempts: Vec<_> =
        attempts.map(|value| value.map(|value| value.to_str().unwrap())).collect();
    assert_eq!(attempts, [None, None, Some("1"), Some("2")]);
    assert_ne!(seen[1].at, seen[2].at, "another instance is asked");
}

#[tokio::test]
async fn unavailable_request_is_retried_at_another_instance() {
    let log = Log::default();
    let instances =
        [served("a", Behavior::Unavailable, &log).await, served("b", Behavior::Echo, &log).await];
    let once = channel(instances);
    let mut again = once.clone().retry_idempotent(2);
    for _ in 0..10 {
        let answer = again.call(post(b"body")).await.unwrap();
        assert_eq!(text(answer).await, "body");
    }
    // Otherwise the response is returned.
    let mut alone = channel([served("c", Behavior::Unavailable, &log).await]);
    let answer = alone.call(post(b"body")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn request_ends_at_its_timeout() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Hang, &log).await]);
    let mut request = get("/");
    request.extensions_mut().insert(CallTimeout(Duration::from_millis(50)));
    let failed = timeout(PATIENCE, channel.call(request)).await.unwrap().unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::TimedOut, 1));
    assert_eq!(failed.to_string(), "the call's timeout has passed");
}

#[tokio::test]
async fn instance_at_its_limit_gets_no_request() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Echo, &log).await]).concurrency_limit(1);
    let held = channel.call(post(b"held")).await.unwrap();
    let failed = channel.call(get("/")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::LimitReached, 0));
    drop(held);
    assert!(channel.call(get("/")).await.is_ok());
}

#[tokio::test]
async fn upgrade_passes_through() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Echo, &log).await]);
    let mut request = get("/chat");
    request.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    request.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
    let mut answer = channel.call(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"ping");
}

#[tokio::test]
async fn sequential_call_is_at_one_instance_at_a_time() {
    let log = Log::default();
    let service = Service::fixed([
        served("a", Behavior::Hang, &log).await,
        served("b", Behavior::Hang, &log).await,
    ]);
    let mut channel = service.http_channel().retry_idempotent(2).sequential();
    let limit = Duration::from_millis(400);
    let failed = channel.call(timed("/", limit)).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::TimedOut, 1));
    assert_eq!(log.all().len(), 1);
}
