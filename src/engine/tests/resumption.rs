//! Tests of watches that resume, or start over with a snapshot.

use waypost_core::testing::{name, weight};

use super::{SeenEvent, changes, may_watch, next_event, small_log, snapshot, start, start_with};
use crate::{
    auth::WatchTarget,
    model::{Cursor, Filter, HistoryId, Revision},
    store::MemoryStore,
};

#[tokio::test(start_paused = true)]
async fn removed_service_that_returns_has_a_snapshot() {
    let test = start_with(MemoryStore, &small_log(2));
    test.register("s", "a", 60_000).await;
    let mut watch = test.watch(&["s"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["a"]), 1));
    test.deregister("s", "a").await;
    test.register("t", "x", 60_000).await;
    test.register("t", "y", 60_000).await;
    test.register("s", "b", 60_000).await;
    // The log has no removal of the first instance any more.
    assert_eq!(next_event(&mut watch).await, (snapshot(&["b"]), 5));
}

#[tokio::test(start_paused = true)]
async fn watch_resumes_at_its_cursor() {
    let test = start();
    for instance in ["a", "b", "c"] {
        test.register("s", instance, 60_000).await;
    }
    let mut watch = test.resume(&["s"], test.cursor(1));
    assert_eq!(next_event(&mut watch).await, (changes([("added", "b"), ("added", "c")]), 3));
    let mut watch = test.resume(&["s"], test.cursor(3));
    assert_eq!(next_event(&mut watch).await, (SeenEvent::Idle, 3), "an idle event at once");
    assert_eq!(test.clock.tick().0, 0);
    test.deregister("s", "a").await;
    assert_eq!(next_event(&mut watch).await, (changes([("evicted", "a")]), 4));
    let mut watch = test.resume(&["t"], test.cursor(0));
    assert_eq!(next_event(&mut watch).await, (SeenEvent::Idle, 4));
}

#[tokio::test(start_paused = true)]
async fn cursor_that_the_log_has_dropped_starts_a_snapshot() {
    let test = start_with(MemoryStore, &small_log(3));
    for instance in ["a", "b", "c", "d", "e"] {
        test.register("s", instance, 60_000).await;
    }
    let whole = || snapshot(&["a", "b", "c", "d", "e"]);
    let below = test.cursor(1);
    assert_eq!(next_event(&mut test.resume(&["s"], below)).await, (whole(), 5));
    let ahead = test.cursor(6);
    assert_eq!(next_event(&mut test.resume(&["s"], ahead)).await, (whole(), 5));
    let other = Cursor { history: HistoryId::random(), revision: Revision(4) };
    assert_eq!(next_event(&mut test.resume(&["s"], Some(other))).await, (whole(), 5));
    let seen = changes([("added", "c"), ("added", "d"), ("added", "e")]);
    assert_eq!(next_event(&mut test.resume(&["s"], test.cursor(2))).await, (seen, 5));
    // The log drops changes between the call and the first read.
    let mut late = test.resume(&["s"], test.cursor(2));
    test.register("s", "f", 60_000).await;
    assert_eq!(next_event(&mut late).await, (snapshot(&["a", "b", "c", "d", "e", "f"]), 6));
}

#[tokio::test(start_paused = true)]
async fn watch_that_falls_behind_the_log_starts_over() {
    let test = start_with(MemoryStore, &small_log(3));
    test.register("s", "a", 60_000).await;
    let mut watch = test.watch(&["s"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["a"]), 1));
    for round in 1..=3 {
        test.update("s", "a", weight(round)).await;
    }
    let seen = changes([("updated", "a"), ("updated", "a"), ("updated", "a")]);
    assert_eq!(next_event(&mut watch).await, (seen, 4), "just within the log");
    test.deregister("s", "a").await;
    for instance in ["b", "c", "d"] {
        test.register("s", instance, 60_000).await;
    }
    assert_eq!(next_event(&mut watch).await, (snapshot(&["b", "c", "d"]), 8));
    test.deregister("s", "c").await;
    assert_eq!(next_event(&mut watch).await, (changes([("evicted", "c")]), 9));
}

#[tokio::test(start_paused = true)]
async fn cursor_of_an_earlier_policy_resumes_watches_of_named_services_alone() {
    let test = start();
    for instance in ["a", "b"] {
        test.register("n/s", instance, 60_000).await;
    }
    let namespace = |cursor| {
        let subjects = WatchTarget::Namespace(name("n"));
        test.engine.watch(may_watch(subjects), Filter::default(), cursor)
    };
    let seen = changes([("added", "b")]);
    assert_eq!(next_event(&mut namespace(test.cursor(1))).await, (seen, 2));
    test.engine.replace_policy(|| {});
    // Its reader may have seen a part of the namespace, which it now sees whole.
    let mut begun = namespace(test.cursor(2));
    assert_eq!(next_event(&mut begun).await, (snapshot(&["a", "b"]), 2));
    let mut named = test.resume(&["n/s"], test.cursor(1));
    assert_eq!(next_event(&mut named).await, (changes([("added", "b")]), 2));
    test.register("n/s", "c", 60_000).await;
    let later = next_event(&mut namespace(test.cursor(3))).await;
    assert_eq!(later, (SeenEvent::Idle, 3), "a cursor of the present policy");
}
