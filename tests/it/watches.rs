//! What a watch promises, one watcher at a time.

use std::collections::BTreeMap;

use prost::Message;
use tokio::time::Instant;
use waypost::model::Limits;

use crate::support::{
    Follower, TestServer, identity, instance, placed,
    proto::{
        ChangeKind, ChangeReason, Cursor, DeregisterRequest, Instance, UpdateRequest, WatchRequest,
        watch_response::Event,
    },
    register, resolve_all, revision, watch_of, zone_filter,
};

fn evict(service: &str, id: &str) -> DeregisterRequest {
    DeregisterRequest { service: service.into(), id: id.into(), ..DeregisterRequest::default() }
}

fn move_to(lease_id: u64, zone: &str) -> UpdateRequest {
    UpdateRequest {
        lease_id,
        instance: Some(Instance { zone: zone.to_owned(), ..Instance::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["zone".to_owned()] }),
        ..UpdateRequest::default()
    }
}

fn kinds(changes: &[crate::support::proto::Change]) -> Vec<(ChangeKind, ChangeReason, String)> {
    let kind = |change: &crate::support::proto::Change| {
        let id = change.instance.as_ref().map(|instance| instance.id.clone());
        (change.kind(), change.reason(), id.unwrap_or_default())
    };
    changes.iter().map(kind).collect()
}

#[tokio::test]
async fn a_watch_begins_with_a_snapshot_and_goes_on_with_changes() {
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
async fn a_watch_of_what_does_not_exist_yet_begins_empty() {
    let server = TestServer::start().await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["later"])).await;
    assert!(follower.state.is_empty());
    assert_eq!(follower.revision(), 0);
    let added = register(&mut server.registry(), instance("later", "a")).await;
    assert_eq!(follower.next_change().await.instance, added.instance);
}

#[tokio::test]
async fn one_watch_follows_several_services() {
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
async fn a_watch_of_no_services_follows_its_whole_namespace() {
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
async fn what_comes_to_match_a_filter_is_added_and_what_no_longer_does_is_removed() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let a = register(&mut registry, placed("s", "a", "in", "1")).await;
    let b = register(&mut registry, placed("s", "b", "out", "1")).await;
    let request = WatchRequest { filter: Some(zone_filter("in")), ..watch_of(&["s"]) };
    let mut follower = Follower::ready(&mut server.discovery(), request).await;
    assert_eq!(follower.state.len(), 1);
    registry.update(move_to(b.lease_id, "in")).await.expect("updated");
    registry.update(move_to(a.lease_id, "out")).await.expect("updated");
    registry.update(move_to(a.lease_id, "farther-out")).await.expect("updated");
    register(&mut registry, placed("s", "b", "in", "2")).await;
    register(&mut registry, placed("s", "c", "out", "1")).await;
    register(&mut registry, placed("s", "b", "out", "2")).await;
    register(&mut registry, placed("s", "b", "in", "3")).await;
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

#[tokio::test]
async fn a_watch_resumes_where_its_caller_stands() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    register(&mut registry, instance("orders", "a")).await;
    let follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let (state, cursor) = (follower.state.clone(), follower.cursor.clone());
    drop(follower);
    register(&mut registry, instance("orders", "b")).await;
    register(&mut registry, instance("carts", "c")).await;
    registry.deregister(evict("orders", "a")).await.expect("gone");
    let request = WatchRequest { resume: cursor, ..watch_of(&["orders"]) };
    let mut follower = Follower::resume(&mut server.discovery(), request, state).await;
    let seen = kinds(&follower.next_changes(2).await);
    assert_eq!(
        seen,
        [
            (ChangeKind::Added, ChangeReason::Unspecified, "b".to_owned()),
            (ChangeKind::Removed, ChangeReason::Evicted, "a".to_owned()),
        ]
    );
    assert_eq!(follower.snapshots, 0, "nothing that was known is sent again");
    let there = resolve_all(&mut server.discovery(), "orders").await;
    assert_eq!(follower.state.into_values().collect::<Vec<_>>(), there.instances);
    assert_eq!(follower.cursor, there.cursor);
}

#[tokio::test]
async fn a_watch_that_resumes_at_the_present_hears_so_at_once() {
    let server = TestServer::start().await;
    let added = register(&mut server.registry(), instance("orders", "a")).await;
    let request = WatchRequest { resume: added.cursor.clone(), ..watch_of(&["orders"]) };
    let begun = Instant::now();
    let mut follower =
        Follower::resume(&mut server.discovery(), request, BTreeMap::default()).await;
    let first = follower.message().await;
    assert!(matches!(first.event, Some(Event::Idle(_))), "{first:?}");
    assert_eq!(first.cursor, added.cursor);
    assert!(begun.elapsed().as_secs() < 5, "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_watch_that_cannot_resume_begins_with_a_snapshot() {
    let server = TestServer::start().await;
    let cursor = register(&mut server.registry(), instance("orders", "a")).await.cursor;
    let cursor = cursor.expect("a cursor");
    let foreign = "3b241101-e2bb-4255-8caf-4136c566a962".to_owned();
    for resume in [
        Cursor { history_id: foreign, ..cursor.clone() },
        Cursor { history_id: String::new(), ..cursor.clone() },
        Cursor { history_id: "no history at all \u{0}".to_owned(), ..cursor.clone() },
        Cursor { revision: cursor.revision + 1, ..cursor.clone() },
        Cursor { revision: u64::MAX, ..cursor.clone() },
    ] {
        let request = WatchRequest { resume: Some(resume.clone()), ..watch_of(&["orders"]) };
        let mut discovery = server.discovery();
        let mut stream = discovery.watch(request).await.expect("the watch opens").into_inner();
        let first = stream.message().await.expect("a message").expect("a message");
        let Some(Event::Snapshot(snapshot)) = first.event else { panic!("{resume:?}: {first:?}") };
        assert_eq!((snapshot.instances.len(), snapshot.last), (1, true));
        assert_eq!(first.cursor.as_ref(), Some(&cursor));
    }
}

#[tokio::test]
async fn a_watch_that_resumes_behind_the_log_begins_with_a_snapshot() {
    let limits = Limits { log_changes_max: 3, ..Limits::default() };
    let server = TestServer::start_with(limits).await;
    let mut registry = server.registry();
    let mut cursors = Vec::new();
    for id in 0..8 {
        let added = register(&mut registry, instance("orders", &id.to_string())).await;
        cursors.push(added.cursor.expect("a cursor"));
    }
    for (behind, cursor) in cursors.iter().rev().enumerate() {
        let request = WatchRequest { resume: Some(cursor.clone()), ..watch_of(&["orders"]) };
        let mut discovery = server.discovery();
        let mut stream = discovery.watch(request).await.expect("the watch opens").into_inner();
        let first = stream.message().await.expect("a message").expect("a message");
        assert_eq!(first.cursor.as_ref(), cursors.last());
        match first.event {
            Some(Event::Idle(_)) => assert_eq!(behind, 0),
            Some(Event::Changes(changes)) => {
                assert!((1..=3).contains(&behind), "{behind} behind");
                assert_eq!(changes.changes.len(), behind);
            }
            Some(Event::Snapshot(snapshot)) => {
                assert!(behind > 3, "{behind} behind");
                assert_eq!((snapshot.instances.len(), snapshot.last), (8, true));
            }
            None => panic!("no event"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_comes_in_parts_of_which_only_the_last_says_so() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let value = "x".repeat(4096 - 8);
    let metadata: BTreeMap<_, _> =
        (0..4).map(|entry| (format!("key-{entry}"), value.clone())).collect();
    let mut expected = BTreeMap::new();
    for number in 0..600 {
        let service = ["one", "two", "three"][number % 3];
        let large =
            Instance { metadata: metadata.clone(), ..instance(service, &number.to_string()) };
        let made = register(&mut registry, large).await.instance.expect("an instance");
        expected.insert(identity(&made), made);
    }
    let mut follower = Follower::open(&mut server.discovery(), watch_of(&[])).await;
    let mut parts = 0;
    loop {
        let message = follower.message().await;
        assert!(message.encoded_len() < 4 * 1024 * 1024, "{} bytes", message.encoded_len());
        assert_eq!(message.cursor.as_ref().map(|cursor| cursor.revision), Some(600));
        let Some(Event::Snapshot(snapshot)) = message.event else { panic!("a part is missing") };
        parts += 1;
        if snapshot.last {
            break;
        }
    }
    assert!(parts >= 3, "{parts} part(s) for 10 MB");
    assert_eq!(follower.state, expected);
    // What happens after the snapshot goes on from it.
    let marker = register(&mut registry, instance("one", "marker")).await;
    assert_eq!(follower.next_change().await.instance, marker.instance);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_changes_come_in_messages_that_clients_take() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let cursor = register(&mut registry, instance("orders", "first")).await.cursor;
    let metadata: BTreeMap<_, _> =
        (0..4).map(|entry| (format!("key-{entry}"), "y".repeat(4096 - 8))).collect();
    for number in 0..400 {
        let large =
            Instance { metadata: metadata.clone(), ..instance("orders", &format!("{number}")) };
        register(&mut registry, large).await;
    }
    let request = WatchRequest { resume: cursor, ..watch_of(&["orders"]) };
    let mut follower =
        Follower::resume(&mut server.discovery(), request, BTreeMap::default()).await;
    while follower.changes.len() < 400 {
        let message = follower.message().await;
        assert!(message.encoded_len() < 4 * 1024 * 1024, "{} bytes", message.encoded_len());
    }
    assert_eq!(follower.snapshots, 0);
    assert_eq!(follower.state.len(), 400);
}

#[tokio::test]
async fn a_quiet_watch_says_within_ten_seconds_that_it_lives_and_where_the_registry_stands() {
    let server = TestServer::start().await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["quiet"])).await;
    let begun = Instant::now();
    let mut registry = server.registry();
    let mut last = 0;
    for id in 0..5 {
        let added = register(&mut registry, instance("busy", &id.to_string())).await;
        last = revision(added.cursor.as_ref());
    }
    let message = follower.message().await;
    let waited = begun.elapsed();
    assert!(matches!(message.event, Some(Event::Idle(_))), "{message:?}");
    assert_eq!(follower.revision(), last);
    assert!(waited.as_secs_f64() < 10.0, "it took {waited:?}");
}
