//! A watch starts with a snapshot and continues with changes, through its filter.

use waypost_client::proto::{
    ChangeKind, ChangeReason, Instance, WatchRequest, watch_response::Event,
};
use waypost_testing::{
    registry::{instance, instance_in, register, resolve_all, revision, watch_of, zone_filter},
    watch::Follower,
};

use super::{evict, kinds, move_to};
use crate::support::TestServer;

#[tokio::test]
async fn watch_starts_with_a_snapshot_and_continues_with_changes() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let a = register(&mut registry, instance("orders", "a")).await;
    register(&mut registry, instance("carts", "c")).await;
    let mut follower = Follower::open(&mut server.discovery(), watch_of(&["orders"])).await;
    let first = follower.message().await;
    let Some(Event::Snapshot(snapshot)) = first.event else { panic!("{first:?}") };
    assert!(snapshot.last);
    assert_eq!(snapshot.instances, [a.instance.expect("an instance")]);
    assert_eq!(first.cursor.map(|cursor| cursor.revision), Some(2));

    let b = register(&mut registry, instance("orders", "b")).await;
    registry.update(move_to(b.lease_id, "eu-1")).await.expect("updated");
    // Another service's changes are not for this watch.
    register(&mut registry, instance("carts", "d")).await;
    registry.deregister(evict("orders", "a")).await.expect("gone");
    let seen = kinds(&follower.next_changes(3).await);
    assert_eq!(
        seen,
        [
            (ChangeKind::Added, ChangeReason::Unspecified, "b".to_owned()),
            (ChangeKind::Updated, ChangeReason::Unspecified, "b".to_owned()),
            (ChangeKind::Removed, ChangeReason::Evicted, "a".to_owned()),
        ]
    );
    let there = resolve_all(&mut server.discovery(), "orders").await;
    assert_eq!(follower.state.into_values().collect::<Vec<_>>(), there.instances);
    assert_eq!(follower.cursor, there.cursor);
}

#[tokio::test]
async fn watch_of_an_unknown_service_starts_empty() {
    let server = TestServer::start().await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["later"])).await;
    assert!(follower.state.is_empty());
    assert_eq!(follower.revision(), 0);
    let added = register(&mut server.registry(), instance("later", "a")).await;
    assert_eq!(follower.next_change().await.instance, added.instance);
}

#[tokio::test]
async fn watch_covers_several_services() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    register(&mut registry, instance("a", "1")).await;
    register(&mut registry, instance("c", "1")).await;
    // Named twice is followed once.
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["b", "a", "a"])).await;
    assert_eq!(follower.state.len(), 1);
    for (service, id) in [("b", "2"), ("c", "3"), ("a", "4"), ("b", "5")] {
        register(&mut registry, instance(service, id)).await;
    }
    let seen = kinds(&follower.next_changes(3).await);
    assert_eq!(seen.iter().map(|(.., id)| id.as_str()).collect::<Vec<_>>(), ["2", "4", "5"]);
}

#[tokio::test]
async fn watch_without_services_covers_the_namespace() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let within = |namespace: &str, service: &str| Instance {
        namespace: namespace.to_owned(),
        ..instance(service, "1")
    };
    register(&mut registry, within("red", "a")).await;
    register(&mut registry, within("blue", "a")).await;
    let request = WatchRequest { namespace: "red".into(), ..WatchRequest::default() };
    let mut follower = Follower::ready(&mut server.discovery(), request).await;
    assert_eq!(follower.state.len(), 1);
    register(&mut registry, within("blue", "b")).await;
    register(&mut registry, within("red", "new-service")).await;
    register(&mut registry, within("", "b")).await;
    let last = register(&mut registry, within("red", "a-later")).await;
    follower.next_changes(2).await;
    assert!(follower.state.keys().all(|(namespace, ..)| namespace == "red"));
    assert_eq!(follower.revision(), revision(last.cursor.as_ref()));
}

#[tokio::test]
async fn instances_are_added_and_removed_as_they_match_a_filter() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let a = register(&mut registry, instance_in("s", "a", "in", "1")).await;
    let b = register(&mut registry, instance_in("s", "b", "out", "1")).await;
    let request = WatchRequest { filter: Some(zone_filter("in")), ..watch_of(&["s"]) };
    let mut follower = Follower::ready(&mut server.discovery(), request).await;
    assert_eq!(follower.state.len(), 1);
    registry.update(move_to(b.lease_id, "in")).await.expect("updated");
    registry.update(move_to(a.lease_id, "out")).await.expect("updated");
    registry.update(move_to(a.lease_id, "farther-out")).await.expect("updated");
    register(&mut registry, instance_in("s", "b", "in", "2")).await;
    register(&mut registry, instance_in("s", "c", "out", "1")).await;
    register(&mut registry, instance_in("s", "b", "out", "2")).await;
    register(&mut registry, instance_in("s", "b", "in", "3")).await;
    registry.deregister(evict("s", "a")).await.expect("gone");
    registry.deregister(evict("s", "b")).await.expect("gone");
    let seen = kinds(&follower.next_changes(6).await);
    let (added, removed) = (ChangeKind::Added, ChangeKind::Removed);
    let none = ChangeReason::Unspecified;
    assert_eq!(
        seen,
        [
            (added, none, "b".to_owned()),
            (removed, none, "a".to_owned()),
            (ChangeKind::Updated, ChangeReason::Replaced, "b".to_owned()),
            (removed, none, "b".to_owned()),
            (added, none, "b".to_owned()),
            (removed, ChangeReason::Evicted, "b".to_owned()),
        ]
    );
    assert!(follower.state.is_empty());
}
