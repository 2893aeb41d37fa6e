//! Watches: snapshots, changes, resumption and filters.

use waypost_client::proto::{
    Cursor, DeregisterRequest, Filter, Instance, WatchRequest, watch_response::Event,
};

use super::{FoldedWatch, Subject, order, orders_of, register, registry};

async fn deregister(subject: &impl Subject, lease_id: u64) {
    let leave = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
    registry(subject).deregister(leave).await.expect("valid");
}

/// Folding a snapshot and the changes after it gives the present state.
pub async fn watch_sends_a_snapshot_and_then_changes(subject: &impl Subject) {
    let mut watch = FoldedWatch::open(subject, orders_of("follow")).await;
    assert!(watch.snapshot().await.is_empty());
    let lease = register(subject, order("follow", "a")).await.lease_id;
    assert_eq!(watch.next_changes().await, [("ADDED", "UNSPECIFIED", "a".to_owned())]);
    let b = register(subject, order("follow", "b")).await.instance;
    assert_eq!(watch.next_changes().await, [("ADDED", "UNSPECIFIED", "b".to_owned())]);
    deregister(subject, lease).await;
    assert_eq!(watch.next_changes().await, [("REMOVED", "DEREGISTERED", "a".to_owned())]);
    assert!(watch.instances.values().eq(&b));
}

/// A watch with the cursor of another one continues after it; where nothing has changed, it gets an
/// idle message at once.
pub async fn watch_resumes_without_a_snapshot(subject: &impl Subject) {
    let lease = register(subject, order("resume", "a")).await.lease_id;
    let mut before = FoldedWatch::open(subject, orders_of("resume")).await;
    before.snapshot().await;
    let resume = before.cursor.clone();
    drop(before);
    let request = WatchRequest { resume, ..orders_of("resume") };
    let mut idle = FoldedWatch::open(subject, request.clone()).await;
    assert!(matches!(idle.next().await, Event::Idle(_)));

    register(subject, order("resume", "b")).await;
    deregister(subject, lease).await;
    let mut resumed = FoldedWatch::open(subject, request).await;
    resumed.instances.insert(("orders".into(), "a".into()), Instance::default());
    let mut changes = Vec::new();
    while changes.len() < 2 {
        changes.extend(resumed.next_changes().await);
    }
    let expected =
        [("ADDED", "UNSPECIFIED", "b".to_owned()), ("REMOVED", "DEREGISTERED", "a".to_owned())];
    assert_eq!(changes, expected);
}

/// A cursor of another history, or of a revision that has not happened, leads to a snapshot.
pub async fn watch_starts_over_where_it_cannot_resume(subject: &impl Subject) {
    let cursor = register(subject, order("over", "a")).await.cursor.expect("a cursor");
    for resume in [
        Cursor { history_id: "00000000-0000-4000-8000-00000000ffff".into(), ..cursor.clone() },
        Cursor { history_id: "nonsense".into(), ..cursor.clone() },
        Cursor { revision: u64::MAX, ..cursor },
    ] {
        let request = WatchRequest { resume: Some(resume), ..orders_of("over") };
        let mut watch = FoldedWatch::open(subject, request).await;
        assert_eq!(watch.snapshot().await, ["a"]);
    }
}

/// A watch names services, or follows all of its namespace.
pub async fn watch_follows_its_services_alone(subject: &impl Subject) {
    let other =
        |namespace: &str, id: &str| Instance { service: "prices".into(), ..order(namespace, id) };
    register(subject, order("alone", "a")).await;
    register(subject, other("alone", "b")).await;
    register(subject, order("alone-other", "c")).await;
    let mut orders = FoldedWatch::open(subject, orders_of("alone")).await;
    assert_eq!(orders.snapshot().await, ["a"]);
    let all = WatchRequest { namespace: "alone".into(), ..WatchRequest::default() };
    let mut all = FoldedWatch::open(subject, all).await;
    assert_eq!(all.snapshot().await, ["a", "b"]);

    register(subject, order("alone-other", "d")).await;
    register(subject, other("alone", "e")).await;
    register(subject, order("alone", "f")).await;
    assert_eq!(orders.next_changes().await, [("ADDED", "UNSPECIFIED", "f".to_owned())]);
    while all.instances.len() < 4 {
        all.next_changes().await;
    }
    let ids: Vec<_> = all.instances.keys().map(|(_, id)| id.as_str()).collect();
    assert_eq!(ids, ["a", "f", "b", "e"]);
}

/// Instances that come to match appear as added, and those that cease to match as removed.
pub async fn watch_with_a_filter_sees_instances_enter_and_leave(subject: &impl Subject) {
    let zoned = |zone: &str| Instance { zone: zone.into(), ..order("zones", "a") };
    register(subject, zoned("x")).await;
    let filter = Some(Filter { zones: vec!["y".into()], ..Filter::default() });
    let request = WatchRequest { filter, ..orders_of("zones") };
    let mut watch = FoldedWatch::open(subject, request).await;
    assert!(watch.snapshot().await.is_empty());
    register(subject, zoned("y")).await;
    assert_eq!(watch.next_changes().await, [("ADDED", "UNSPECIFIED", "a".to_owned())]);
    register(subject, zoned("x")).await;
    assert_eq!(watch.next_changes().await, [("REMOVED", "UNSPECIFIED", "a".to_owned())]);
    register(subject, zoned("z")).await;
    let lease = register(subject, zoned("y")).await.lease_id;
    assert_eq!(watch.next_changes().await, [("ADDED", "UNSPECIFIED", "a".to_owned())]);
    deregister(subject, lease).await;
    assert_eq!(watch.next_changes().await, [("REMOVED", "DEREGISTERED", "a".to_owned())]);
}
