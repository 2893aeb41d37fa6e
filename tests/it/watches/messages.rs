//! The messages of a watch: parts of large snapshots, large changes, idle messages.

use std::collections::BTreeMap;

use prost::Message;
use tokio::time::Instant;
use waypost_client::proto::{Instance, WatchRequest, watch_response::Event};
use waypost_testing::{
    registry::{identity, instance, register, revision, watch_of},
    watch::Follower,
};

use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_snapshot_is_sent_in_parts_with_the_last_one_marked() {
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
    // Changes after the snapshot continue from it.
    let marker = register(&mut registry, instance("one", "marker")).await;
    assert_eq!(follower.next_change().await.instance, marker.instance);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_changes_are_sent_in_messages_under_the_limit() {
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
async fn idle_watch_sends_the_cursor_within_ten_seconds() {
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
