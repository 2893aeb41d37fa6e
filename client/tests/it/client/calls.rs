//! Calls while replicas and the registry come and go.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tonic::{Code, Request};
use waypost_client::{PickContext, Policy};
use waypost_testing::greeter::{GreetRequest, greeter_client::GreeterClient};

use super::{counts, failures, greet, placed, registry, replica, soon, until_seen};

#[tokio::test]
async fn calls_are_balanced_and_follow_membership() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    let channel = client.service("greeter").with_policy(Policy::LeastRequest).channel();
    let spread = counts(&channel, 200).await;
    assert!(spread["a"] > 50 && spread["b"] > 50, "{spread:?}");
    let _c = placed(&network, &fake, "c");
    until_seen(channel.service(), &["a", "b", "c"]).await;
    assert_eq!(counts(&channel, 300).await.len(), 3);
}

#[tokio::test]
async fn killed_replica_fails_no_later_call() {
    let (network, fake, _process, client) = registry();
    let (a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    let channel = client.channel("greeter");
    assert_eq!(counts(&channel, 100).await.len(), 2);
    drop(a);
    // Until the connection's end is seen, a call may still be lost on it.
    let mut lost = 0;
    while greet(&channel).await.is_err() {
        lost += 1;
    }
    assert!(lost <= 2, "{lost} calls lost");
    // The registry still lists it: its calls go to the other one.
    assert_eq!(counts(&channel, 200).await, BTreeMap::from([("b".into(), 200)]));
    let _a = replica(&network, "a");
    let returned = async { while greet(&channel).await.unwrap() != "a" {} };
    soon(returned).await;
}

#[tokio::test]
async fn calls_succeed_while_the_registry_is_unreachable() {
    let (network, fake, process, client) = registry();
    let _a = placed(&network, &fake, "a");
    let channel = client.channel("greeter");
    assert_eq!(greet(&channel).await.unwrap(), "a");
    drop(process);
    assert_eq!(counts(&channel, 50).await, BTreeMap::from([("a".into(), 50)]));
}

#[tokio::test]
async fn call_without_instances_fails_at_once_with_the_reason() {
    let (_network, _fake, _process, client) = registry();
    let channel = client.channel("greeter");
    let status = greet(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "no instance of greeter: the service has no instances");
}

#[tokio::test]
async fn call_reports_that_no_instance_accepts_connections() {
    let (network, fake, _process, client) = registry();
    for id in ["a", "b", "c"] {
        drop(placed(&network, &fake, id));
    }
    let channel = client.channel("greeter");
    let status = greet(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().starts_with("could not connect to any of 3 instances of greeter"),
        "{status:?}"
    );
}

#[tokio::test]
async fn call_timeout_covers_all_attempts() {
    let (network, fake, _process, client) = registry();
    let _a = placed(&network, &fake, "a");
    let channel = client.channel("greeter");
    let mut request = Request::new(GreetRequest { name: "nobody".into() });
    request.set_timeout(Duration::from_millis(100));
    let began = Instant::now();
    let status = soon(GreeterClient::new(channel.clone()).greet(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(5));
    // And the channel is none the worse.
    assert_eq!(greet(&channel).await.unwrap(), "a");
}

#[tokio::test]
async fn busy_replica_is_not_picked() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    let channel = client.channel("greeter");
    soon(channel.service().ready()).await.unwrap();
    // Calls that last go to both by turns: a call more always finds one that is less busy.
    let picks: Vec<_> =
        (0..100).map(|_| channel.service().pick(&PickContext::new()).unwrap()).collect();
    let at_a = picks.iter().filter(|pick| pick.instance().id == "a").count();
    assert!((49..=51).contains(&at_a), "{at_a}");
}

#[tokio::test]
async fn refused_connections_fail_no_call() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    fake.place("greeter", "gone", "gone");
    let channel = client.channel("greeter");
    assert_eq!(failures(&channel, 1_000).await, 0);
}

#[tokio::test]
async fn unreachable_instance_fails_no_call() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    fake.place("greeter", "nowhere", "nowhere");
    let channel = client.channel("greeter");
    assert_eq!(failures(&channel, 1_000).await, 0);
}

#[tokio::test]
async fn unreachable_instance_is_ejected_for_callers_with_short_timeouts() {
    let (network, fake, _process, client) = registry();
    let _a = placed(&network, &fake, "a");
    fake.place("greeter", "nowhere", "nowhere");
    let channel = client.channel("greeter");
    soon(channel.service().ready()).await.unwrap();
    let mut given_up = 0;
    for _ in 0..200 {
        let patience = Duration::from_millis(500);
        given_up += usize::from(tokio::time::timeout(patience, greet(&channel)).await.is_err());
    }
    // The first one, and a probe now and then.
    assert!((1..=10).contains(&given_up), "{given_up} of 200");
}

#[tokio::test]
async fn connection_is_made_with_any_call_deadline() {
    let (network, fake, _process, client) = registry();
    let _far = placed(&network, &fake, "far");
    let channel = client.channel("greeter");
    let served = async {
        loop {
            let mut request = Request::new(GreetRequest { name: "you".into() });
            request.set_timeout(Duration::from_millis(100));
            if GreeterClient::new(channel.clone()).greet(request).await.is_ok() {
                return;
            }
        }
    };
    soon(served).await;
}

#[tokio::test]
async fn failing_and_silent_instances_are_ejected() {
    for bad in ["silent", "failing"] {
        let (network, fake, _process, client) = registry();
        let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
        let _bad = placed(&network, &fake, bad);
        let channel = client.channel("greeter");
        let failed = failures(&channel, 2_000).await;
        // Five failures in a row eject it, however rare calls to it are by then; calls in flight
        // fail as well.
        assert!(failed <= 5 + 8, "{bad}: {failed}");
    }
}
