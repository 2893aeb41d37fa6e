//! Watches that resume from a cursor, or can't.

use std::collections::BTreeMap;

use tokio::time::Instant;
use waypost::model::Limits;
use waypost_client::proto::{
    ChangeKind, ChangeReason, Cursor, WatchRequest, watch_response::Event,
};
use waypost_testing::{
    registry::{instance, register, resolve_all, watch_of},
    watch::Follower,
};

use super::{evict, kinds};
use crate::support::TestServer;

#[tokio::test]
async fn watch_resumes_at_its_cursor() {
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
async fn watch_resumed_at_the_latest_revision_gets_an_idle_message_at_once() {
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
async fn watch_that_cannot_resume_starts_with_a_snapshot() {
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
async fn watch_resumed_behind_the_log_starts_with_a_snapshot() {
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
