//! Slow uploads and silent instances.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service as _;
use waypost_client::{
    CallTimeout, FailureKind, HttpChannel, PickContext, Policy, ServedBy, Service,
};

use super::{Behavior, Log, PATIENCE, channel, served, text, timed};

/// A body of these pieces, each after a pause.
fn slow(pieces: usize, pause: Duration) -> Body {
    let pieces = stream::iter(0..pieces).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"piece")))
    });
    Body::new(StreamBody::new(pieces).map_err(|never| match never {}))
}

fn put(body: Body, timeout: Duration) -> Request<Body> {
    Request::put("/").extension(CallTimeout(timeout)).body(body).unwrap()
}

/// The number of instances that are not ejected.
fn healthy(service: &Service) -> usize {
    let picked = (0..200).filter_map(|_| service.pick(&PickContext::new().healthy_only()).ok());
    picked.map(|pick| pick.instance().id.clone()).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn upload_may_take_longer_than_the_timeout() {
    let log = Log::default();
    let service = Service::fixed([
        served("a", Behavior::Read, &log).await,
        served("b", Behavior::Echo, &log).await,
    ]);
    let limit = Duration::from_secs(1);
    for channel in [service.http_channel(), service.http_channel().http2()] {
        let uploads = (0..12).map(|_| {
            let mut channel = channel.clone();
            async move {
                let body = slow(16, Duration::from_millis(125));
                text(channel.call(put(body, limit)).await.unwrap()).await
            }
        });
        let read = timeout(PATIENCE, futures_util::future::join_all(uploads)).await.unwrap();
        assert!(read.iter().all(|read| read.len() == 16 * 5), "{read:?}");
    }
    assert_eq!(healthy(&service), 2);
}

#[tokio::test]
async fn pause_in_an_upload_is_no_timeout() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Read, &log).await]);
    let body = slow(2, Duration::from_millis(600));
    let answer = channel.call(put(body, Duration::from_millis(300))).await.unwrap();
    assert_eq!(text(answer).await, "piecepiece");
}

#[tokio::test]
async fn timeout_starts_at_the_end_of_the_upload() {
    let log = Log::default();
    let mut channel = channel([served("a", Behavior::Hang, &log).await]);
    let began = Instant::now();
    let body = slow(6, Duration::from_millis(100));
    let limit = Duration::from_millis(400);
    let failed = timeout(PATIENCE, channel.call(put(body, limit))).await.unwrap().unwrap_err();
    assert_eq!(failed.kind(), FailureKind::TimedOut);
    assert!(began.elapsed() >= 6 * Duration::from_millis(100) + limit, "{:?}", began.elapsed());
}

#[tokio::test]
async fn instance_that_stops_reading_times_out_and_is_ejected() {
    let log = Log::default();
    for http2 in [false, true] {
        let service = Service::fixed([served("a", Behavior::Hang, &log).await]);
        let channel = service.http_channel();
        let mut channel = if http2 { channel.http2() } else { channel };
        assert_eq!(healthy(&service), 1);
        for _ in 0..5 {
            let endless = stream::repeat_with(|| {
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[7; 4096])))
            });
            let body = Body::new(StreamBody::new(endless).map_err(|never| match never {}));
            let request = put(body, Duration::from_millis(200));
            let failed = timeout(PATIENCE, channel.call(request)).await.unwrap().unwrap_err();
            assert_eq!(failed.kind(), FailureKind::TimedOut, "HTTP/2: {http2}");
        }
        assert_eq!(healthy(&service), 0, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn aborted_upload_does_not_count_against_the_instance() {
    let log = Log::default();
    for (act, http2) in
        [Behavior::Read, Behavior::Echo].into_iter().flat_map(|act| [(act, false), (act, true)])
    {
        let service = Service::fixed([served("a", act, &log).await]);
        let channel = service.http_channel().retry_idempotent(3);
        let mut channel = if http2 { channel.http2() } else { channel };
        for _ in 0..30 {
            let begin = stream::iter([Ok(Frame::data(Bytes::from_static(b"begin")))]);
            let broken = begin.chain(stream::once(async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Err(tonic::Status::cancelled("the caller is gone"))
            }));
            let body = Body::new(StreamBody::new(Box::pin(broken)));
            let answered = timeout(PATIENCE, channel.call(put(body, PATIENCE))).await.unwrap();
            if let Ok(answer) = answered {
                answer.into_body().collect().await.unwrap_err();
            }
        }
        assert_eq!(healthy(&service), 1, "HTTP/2: {http2}");
    }
}

/// Makes calls at the same time, all of which succeed.
async fn all_answered(channel: &HttpChannel, calls: usize, limit: Duration) {
    let calls = (0..calls).map(|_| {
        let mut channel = channel.clone();
        async move { channel.call(timed("/", limit)).await.map(|answer| answer.status()) }
    });
    for answered in timeout(PATIENCE, futures_util::future::join_all(calls)).await.unwrap() {
        assert_eq!(answered.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn silent_instance_fails_no_call_and_is_ejected() {
    let log = Log::default();
    for (http2, policy) in [(false, Policy::RoundRobin), (true, Policy::PeakEwma)] {
        let service = Service::fixed([
            served("silent", Behavior::Hang, &log).await,
            served("b", Behavior::Echo, &log).await,
            served("c", Behavior::Echo, &log).await,
        ]);
        let channel = service.with_policy(policy).http_channel().retry_idempotent(3);
        let channel = if http2 { channel.http2() } else { channel };
        for _ in 0..8 {
            all_answered(&channel, 12, Duration::from_millis(1_600)).await;
        }
        assert_eq!(healthy(&service), 2, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn two_silent_instances_of_three_fail_no_call() {
    let log = Log::default();
    let service = Service::fixed([
        served("silent", Behavior::Hang, &log).await,
        served("dumb", Behavior::Hang, &log).await,
        served("c", Behavior::Echo, &log).await,
    ]);
    let channel = service.with_policy(Policy::RoundRobin).http_channel().retry_idempotent(3);
    for _ in 0..3 {
        all_answered(&channel, 6, Duration::from_secs(2)).await;
    }
}

#[tokio::test]
async fn uniformly_slow_instances_are_not_ejected() {
    let log = Log::default();
    let slow = Behavior::Slow(Duration::from_millis(720));
    let mut instances = Vec::new();
    for id in ["a", "b", "c"] {
        instances.push(served(id, slow, &log).await);
    }
    let service = Service::fixed(instances);
    let channel = service.http_channel().retry_idempotent(3);
    let limit = Duration::from_millis(1_200);
    all_answered(&channel, 1, limit).await;
    // Now the usual time of a response is known.
    let before = log.all().len();
    for _ in 0..4 {
        all_answered(&channel, 6, limit).await;
    }
    let sent = log.all().len() - before;
    assert!(sent <= 30, "24 calls were sent {sent} times");
    assert_eq!(healthy(&service), 3);
}

#[tokio::test]
async fn instance_that_responds_to_other_calls_is_not_silent() {
    let log = Log::default();
    let slow = Behavior::Slow(Duration::from_millis(900));
    let instances = [served("a", slow, &log).await, served("b", slow, &log).await];
    let service = Service::fixed(instances).with_policy(Policy::RoundRobin);
    let channel = service.http_channel().retry_idempotent(2);
    let limit = Duration::from_millis(1_500);
    let mut slow_one = channel.clone();
    let mut slow_one = std::pin::pin!(slow_one.call(timed("/", limit)));
    let mut quick = channel.clone();
    let answer = loop {
        tokio::select! {
            answer = &mut slow_one => break answer.unwrap(),
            answer = quick.call(timed("/quick", limit)) => drop(answer.unwrap()),
        }
    };
    assert_eq!(answer.extensions().get::<ServedBy>().unwrap().attempts(), 1);
    assert_eq!(log.all().iter().filter(|seen| seen.path == "/").count(), 1);
}
