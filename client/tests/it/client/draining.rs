//! Readiness and draining.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::service::LayerExt;
use waypost_client::{DeregisterError, InFlight, Registration, proto};
use waypost_testing::greeter::greeter_server::GreeterServer;

use super::{Replica, an_order, client, counts, failures, placed, registry, soon};
use crate::support::{Fake, Network};

fn following(ready: &watch::Sender<bool>) -> Registration<WatchStream<bool>> {
    an_order().ready_when(WatchStream::new(ready.subscribe()))
}

/// Waits until the registry holds it so.
async fn until_held(fake: &Fake, status: proto::Status) {
    fake.until(|state| state.instances.get("a").is_some_and(|a| a.status() == status)).await;
}

#[tokio::test]
async fn status_follows_readiness() {
    let (_network, fake, _process, client) = registry();
    let ready = watch::Sender::new(false);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    fake.until(|state| state.heartbeats > 2).await;
    assert_eq!(fake.state().instances["a"].status(), proto::Status::Starting);
    for (word, status) in [(true, proto::Status::Up), (false, proto::Status::Down)] {
        ready.send_replace(word);
        until_held(&fake, status).await;
    }
    ready.send_replace(true);
    until_held(&fake, proto::Status::Up).await;
    // The last word stays.
    drop(ready);
    fake.expire_all();
    until_held(&fake, proto::Status::Up).await;
    let told = [proto::Status::Up, proto::Status::Down, proto::Status::Up];
    assert_eq!((fake.state().statuses, fake.state().registrations), (told.into(), 2));
    soon(registered.deregister()).await.unwrap();
}

#[tokio::test]
async fn last_readiness_is_sent_after_an_outage() {
    let (network, fake, process, client) = registry();
    let ready = watch::Sender::new(false);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    ready.send_replace(true);
    until_held(&fake, proto::Status::Up).await;
    drop(process);
    for _ in 0..10 {
        ready.send_replace(false);
        soon(network.until_asked(1)).await;
        ready.send_replace(true);
        soon(network.until_asked(1)).await;
    }
    ready.send_replace(false);
    let _process = fake.serve(&network, "registry");
    until_held(&fake, proto::Status::Down).await;
    assert_eq!(fake.state().statuses, [proto::Status::Up, proto::Status::Down]);
    drop(registered);
}

#[tokio::test]
async fn repeated_registration_has_the_current_readiness() {
    let (network, before) = (Network::default(), Fake::new());
    let process = before.serve(&network, "registry");
    let client = client(&network, &["registry"]);
    let ready = watch::Sender::new(true);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    until_held(&before, proto::Status::Up).await;
    drop(process);
    ready.send_replace(false);
    soon(network.until_asked(3)).await;
    let after = Fake::new();
    let _process = after.serve(&network, "registry");
    until_held(&after, proto::Status::Down).await;
    let log = after.state().log;
    assert!(log.iter().all(|instance| instance.status() != proto::Status::Up), "{log:?}");
    drop(registered);
}

#[tokio::test]
async fn draining_waits_for_calls_in_flight() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let in_flight = InFlight::new();
    let call = in_flight.begin();
    let patience = Duration::from_secs(15);
    let ending = async {
        until_held(&fake, proto::Status::Draining).await;
        // Longer than callers are given to see it.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(fake.state().instances.contains_key("a"), "it left before its call had ended");
        drop(call);
    };
    let began = Instant::now();
    let (drained, ()) = tokio::join!(registered.drain_calls(&in_flight, patience), ending);
    assert!(drained.announced && drained.deregistered.is_ok(), "{drained:?}");
    assert_eq!(drained.unfinished, 0);
    assert!(began.elapsed() < patience);
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn draining_waits_until_callers_have_seen_it() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let began = Instant::now();
    let drained = soon(registered.drain(Duration::from_secs(15))).await;
    assert!(drained.deregistered.is_ok(), "{drained:?}");
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&began.elapsed()));
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn draining_is_bounded_by_its_grace() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let in_flight = InFlight::new();
    let _call = in_flight.begin();
    let drained = soon(registered.drain_calls(&in_flight, Duration::from_millis(1_500))).await;
    assert_eq!((drained.announced, drained.unfinished), (true, 1));
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn draining_does_not_wait_for_an_unreachable_registry() {
    let (_network, _fake, process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    drop(process);
    let drained = soon(registered.drain(Duration::from_millis(300))).await;
    assert!(!drained.announced);
    assert!(matches!(drained.deregistered, Err(DeregisterError::Unreachable(_))), "{drained:?}");
}

#[tokio::test]
async fn draining_what_was_never_registered_ends_at_once() {
    let client = client(&Network::default(), &["registry"]);
    let drained = soon(client.register_in_background(an_order()).drain(Duration::MAX)).await;
    assert!(!drained.announced && drained.deregistered.is_ok(), "{drained:?}");
}

#[tokio::test]
async fn draining_instance_ignores_readiness() {
    let (_network, fake, _process, client) = registry();
    let ready = watch::Sender::new(true);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    until_held(&fake, proto::Status::Up).await;
    let turning = async {
        until_held(&fake, proto::Status::Draining).await;
        ready.send_replace(false);
    };
    let grace = Duration::from_secs(2);
    let (drained, ()) = tokio::join!(registered.drain(grace), turning);
    assert!(drained.announced && drained.deregistered.is_ok(), "{drained:?}");
    assert_eq!(fake.state().statuses.last(), Some(&proto::Status::Draining));
}

#[tokio::test]
async fn drained_replica_can_be_killed_without_a_failed_call() {
    let (network, fake, _process, client) = registry();
    let in_flight = InFlight::new();
    let greeter = in_flight.named_layer(GreeterServer::new(Replica("a".into())));
    let a = network.start("a", tonic::transport::Server::builder().add_service(greeter));
    let registration = Registration::new("greeter", "a", 80).id("a");
    let registered = soon(client.register(registration)).await.unwrap();
    let _b = placed(&network, &fake, "b");
    let channel = client.channel("greeter");
    assert_eq!(counts(&channel, 100).await.len(), 2);
    let leaving = async {
        let drained = soon(registered.drain_calls(&in_flight, Duration::from_secs(10))).await;
        assert_eq!((drained.announced, drained.unfinished), (true, 0));
        drop(a);
    };
    let calls = async {
        let mut failed = 0;
        while in_flight.count() > 0 || fake.state().instances.contains_key("a") {
            failed += failures(&channel, 100).await;
        }
        failed + failures(&channel, 500).await
    };
    let (failed, ()) = tokio::join!(calls, leaving);
    assert_eq!(failed, 0);
}
