//! Retries: when, where, and within which budget.

use std::time::{Duration, Instant};

use tonic::Code;

use super::{
    Behavior, World, call, come_back, greet, request, sent_twice, unavailable, until_seen,
};

#[tokio::test]
async fn unavailable_call_is_not_retried_by_default() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let _b = world.replica("b", unavailable());
    let channel = world.channel(2).await;
    for (times, channel) in [
        (1, channel.clone()),
        (1, channel.clone().retry_idempotent(0)),
        (1, channel.clone().retry_idempotent(1)),
        (3, channel.clone().retry_idempotent(3)),
    ] {
        let before = world.seen().len();
        assert_eq!(greet(&channel).await.unwrap_err().message(), "not now");
        assert_eq!(world.seen().len() - before, times);
    }
}

#[tokio::test]
async fn idempotent_call_is_retried_at_another_instance() {
    let world = World::new();
    let _bad = world.replica("bad", unavailable());
    let _good = world.replica("good", Behavior::Answer);
    let channel = world.channel(2).await.retry_idempotent(2);
    let [first, second] = sent_twice(&world, &channel, "bad").await;
    assert_eq!(second.at, "good");
    assert_eq!(first.header("grpc-previous-rpc-attempts"), None);
    assert_eq!(second.header("grpc-previous-rpc-attempts"), Some("1"));
}

#[tokio::test]
async fn single_instance_is_retried() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let channel = world.channel(1).await.retry_idempotent(2);
    greet(&channel).await.unwrap_err();
    assert_eq!(world.places(), ["a", "a"]);
}

#[tokio::test]
async fn lost_call_is_retried_only_if_allowed() {
    for (attempts, expected) in [(1, Err(Code::Unavailable)), (2, Ok("b".to_owned()))] {
        let world = World::new();
        let a = world.replica("a", Behavior::Hang);
        let channel = world.channel(1).await.retry_idempotent(attempts);
        let calling = tokio::spawn(async move { greet(&channel).await });
        world.until_called(1).await;
        let service = world.client.service("greeter");
        let _b = world.replica("b", Behavior::Answer);
        until_seen(&service, 2).await;
        drop(a);
        let answer = calling.await.unwrap();
        assert_eq!(answer.map_err(|status| status.code()), expected);
    }
}

#[tokio::test]
async fn request_too_large_to_buffer_is_not_retried() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let channel = world.channel(1).await.retry_idempotent(3);
    for (length, times) in [(60_000, 3), (70_000, 1)] {
        let before = world.seen().len();
        let status = call(&channel, request(&"x".repeat(length))).await.unwrap_err();
        assert_eq!(status.message(), "not now");
        assert_eq!(world.seen().len() - before, times, "{length}");
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let channel = world.channel(1).await.retry_idempotent(2);
    let began = Instant::now();
    for _ in 0..200 {
        // Clones of a channel have one budget.
        greet(&channel.clone()).await.unwrap_err();
    }
    let again = world.seen().len() - 200;
    // A reserve of 100, a fifth of 200, and a refill with time.
    let refilled = began.elapsed().as_secs() as usize * 30;
    assert!((100..=140 + refilled).contains(&again), "{again}");
}

#[tokio::test]
async fn pushback_delays_a_retry() {
    for (name, value) in [("grpc-retry-pushback-ms", "250"), ("retry-after", "1")] {
        let world = World::new();
        let _a = world.replica("a", come_back(name, value));
        let channel = world.channel(1).await.retry_idempotent(2);
        greet(&channel).await.unwrap_err();
        let [first, second] = &world.seen()[..] else { panic!("two attempts") };
        let wait = second.when - first.when;
        let least = if name == "retry-after" { 1_000 } else { 250 };
        assert!(wait >= Duration::from_millis(least), "{wait:?}");
    }
}

#[tokio::test]
async fn pushback_forbids_a_retry() {
    for value in ["-1", "soon"] {
        let world = World::new();
        let _a = world.replica("a", come_back("grpc-retry-pushback-ms", value));
        let channel = world.channel(1).await.retry_idempotent(5);
        greet(&channel).await.unwrap_err();
        assert_eq!(world.seen().len(), 1, "{value}");
    }
}

#[tokio::test]
async fn pushback_beyond_the_deadline_ends_the_call() {
    let world = World::new();
    let _a = world.replica("a", come_back("grpc-retry-pushback-ms", "60000"));
    let channel = world.channel(1).await.retry_idempotent(5);
    for timeout in [None, Some(Duration::from_secs(10))] {
        let mut request = request("you");
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let began = Instant::now();
        assert_eq!(call(&channel, request).await.unwrap_err().code(), Code::Unavailable);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
