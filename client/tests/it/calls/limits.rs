//! Deadlines, limits of calls in flight, and waits for an instance.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::Code;
use waypost_client::Service;

use super::{Behavior, World, call, come_back, greet, request, until};

#[tokio::test]
async fn each_attempt_carries_the_remaining_timeout() {
    let world = World::new();
    let _a = world.replica("a", come_back("grpc-retry-pushback-ms", "200"));
    let channel = world.channel(1).await.retry_idempotent(2);
    let mut request = request("you");
    request.set_timeout(Duration::from_secs(30));
    call(&channel, request).await.unwrap_err();
    let seen = world.seen();
    let left: Vec<Duration> = seen.iter().map(|seen| left(seen.header("grpc-timeout"))).collect();
    assert!(left[0] < Duration::from_secs(30), "{left:?}");
    assert!(left[0] > Duration::from_secs(10), "{left:?}");
    assert!(left[1] + Duration::from_millis(200) <= left[0], "{left:?}");
    // Nothing is made up for a call without a timeout.
    greet(&channel).await.unwrap_err();
    assert_eq!(world.seen()[2].header("grpc-timeout"), None);
}

/// A `grpc-timeout` in micro- or milliseconds.
fn left(timeout: Option<&str>) -> Duration {
    let timeout = timeout.unwrap();
    let (count, unit) = timeout.split_at(timeout.len() - 1);
    assert!(count.len() <= 8, "{timeout}");
    let count = count.parse().unwrap();
    match unit {
        "u" => Duration::from_micros(count),
        "m" => Duration::from_millis(count),
        _ => panic!("{timeout}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_in_flight_stay_within_the_limit_of_an_instance() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _a = world.replica("a", Behavior::Wait(release.subscribe()));
    let channel = world.channel(1).await.concurrency_limit(3);
    let began = Instant::now();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { greet(&channel).await })
        })
        .collect();
    until(|| calls.iter().filter(|call| !call.is_finished()).count() <= 3).await;
    assert!(began.elapsed() < Duration::from_secs(5), "the others fail at once");
    release.send_replace(true);
    let mut passed = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => passed += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                assert!(status.message().ends_with("3 calls in flight, their limit"), "{status:?}");
            }
        }
    }
    assert!((1..=3).contains(&passed), "{passed}");
    assert_eq!(world.seen().len(), passed);
    // They have ended: there is room again.
    assert_eq!(greet(&channel).await.unwrap(), "a");
}

#[tokio::test]
async fn calls_go_to_instances_below_their_limit() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _a = world.replica("a", Behavior::Wait(release.subscribe()));
    let _b = world.replica("b", Behavior::Wait(release.subscribe()));
    let channel = world.channel(2).await.concurrency_limit(4);
    let calls: Vec<_> = (1..=8)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { greet(&channel).await })
        })
        .collect();
    world.until_called(8).await;
    assert_eq!(world.places().iter().filter(|at| *at == "a").count(), 4);
    assert_eq!(greet(&channel).await.unwrap_err().code(), Code::ResourceExhausted);
    release.send_replace(true);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn call_waits_for_an_instance_if_configured() {
    let world = World::new();
    let channel = world.channel(0).await;
    assert_eq!(greet(&channel).await.unwrap_err().code(), Code::Unavailable);
    let patient = channel.wait_for_ready(Duration::from_secs(15));
    let calling = async {
        let mut calling = std::pin::pin!(greet(&patient));
        // It is under way before there is an instance.
        tokio::select! {
            biased;
            answer = &mut calling => panic!("{answer:?}"),
            () = std::future::ready(()) => {}
        }
        let _a = world.replica("a", Behavior::Answer);
        calling.await
    };
    assert_eq!(calling.await.unwrap(), "a");
}

#[tokio::test]
async fn wait_for_an_instance_is_bounded() {
    let world = World::new();
    let channel = world.channel(0).await.wait_for_ready(Duration::from_millis(100));
    let began = Instant::now();
    let status = greet(&channel).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(status.message(), "no instance of greeter: the service has no instances");
    let channel = channel.wait_for_ready(Duration::MAX);
    let mut request = request("you");
    request.set_timeout(Duration::from_millis(100));
    let status = call(&channel, request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // Of a service that never changes nothing is to be expected.
    let fixed = Service::fixed([]).channel().wait_for_ready(Duration::MAX);
    assert_eq!(greet(&fixed).await.unwrap_err().code(), Code::Unavailable);
}
