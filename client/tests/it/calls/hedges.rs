//! Hedged calls.

use std::time::Duration;

use tokio::sync::watch;
use waypost_client::Policy;

use super::{Behavior, World, call, greet, request, sent_twice, soon, unavailable, until};

#[tokio::test]
async fn slow_call_is_hedged_and_the_first_response_counts() {
    let world = World::new();
    let _slow = world.replica("slow", Behavior::Hang);
    let _good = world.replica("good", Behavior::Answer);
    let channel = world.channel(2).await.hedge_idempotent(Duration::from_millis(20));
    let [_, second] = sent_twice(&world, &channel, "slow").await;
    assert_eq!(second.at, "good");
    assert_eq!(second.header("grpc-previous-rpc-attempts"), Some("1"));
}

#[tokio::test]
async fn losing_attempt_is_cancelled() {
    let world = World::new();
    let _slow = world.replica("slow", Behavior::Hang);
    let _good = world.replica("good", Behavior::Answer);
    let service = world.channel(2).await.service().with_policy(Policy::RoundRobin);
    // The slow one is called again only if nothing is in flight there any more.
    let channel = service.channel().concurrency_limit(1);
    let channel = channel.hedge_idempotent(Duration::from_millis(5));
    let calling = async {
        while world.places().iter().filter(|at| *at == "slow").count() < 3 {
            assert_eq!(greet(&channel).await.unwrap(), "good");
        }
    };
    soon(calling).await;
}

#[tokio::test]
async fn hedged_call_is_sent_to_two_instances_at_most() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _replicas: Vec<_> =
        ["a", "b", "c"].map(|id| world.replica(id, Behavior::Wait(release.subscribe()))).into();
    let channel = world.channel(3).await.hedge_idempotent(Duration::from_millis(5));
    let calling = tokio::spawn(async move { greet(&channel).await });
    world.until_called(2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    release.send_replace(true);
    calling.await.unwrap().unwrap();
    let mut places = world.places();
    places.dedup();
    assert_eq!(places.len(), 2, "{places:?}");
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test]
async fn failed_hedge_leaves_the_first_attempt_running() {
    let calling = async {
        // Until the slow one is first. Anew each time: one that failed often would be ejected.
        loop {
            let world = World::new();
            let release = watch::Sender::new(false);
            let _slow = world.replica("slow", Behavior::Wait(release.subscribe()));
            let _bad = world.replica("bad", unavailable());
            let channel = world.channel(2).await.hedge_idempotent(Duration::from_millis(20));
            let call = tokio::spawn(async move { greet(&channel).await });
            until(|| call.is_finished() || world.seen().len() > 1).await;
            if world.seen().len() > 1 {
                release.send_replace(true);
                return call.await.unwrap();
            }
            call.await.unwrap().unwrap_err();
        }
    };
    assert_eq!(soon(calling).await.unwrap(), "slow");
}

#[tokio::test]
async fn single_instance_gets_no_hedge() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _a = world.replica("a", Behavior::Wait(release.subscribe()));
    let channel = world.channel(1).await.hedge_idempotent(Duration::from_millis(1));
    let calling = tokio::spawn(async move { greet(&channel).await });
    world.until_called(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    release.send_replace(true);
    assert_eq!(calling.await.unwrap().unwrap(), "a");
    assert_eq!(world.places(), ["a"]);
}

#[tokio::test]
async fn silent_replica_fails_no_idempotent_call_with_a_deadline() {
    let world = World::new();
    let _silent = world.replica("silent", Behavior::Hang);
    let _b = world.replica("b", Behavior::Answer);
    let _c = world.replica("c", Behavior::Answer);
    let service = world.channel(3).await.service().with_policy(Policy::RoundRobin);
    let channel = service.channel().retry_idempotent(2);
    let at_silent = || world.places().iter().filter(|at| *at == "silent").count();
    let mut calls = 0;
    let calling = async {
        while at_silent() < 5 {
            let mut request = request("you");
            request.set_timeout(Duration::from_millis(900));
            assert_ne!(call(&channel, request).await.unwrap(), "silent");
            calls += 1;
        }
        // By now it is ejected.
        for _ in 0..20 {
            greet(&channel).await.unwrap();
        }
    };
    soon(calling).await;
    assert_eq!(at_silent(), 5, "{calls} calls");
}
