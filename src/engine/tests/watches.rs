//! Tests of watches: snapshots, changes, filters, idle events.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use waypost_core::testing::{id, key, name, parts, terms, weight, zone};

use super::{
    SeenEvent, changes, in_zone, may_read_status, may_register, may_watch, named, next_event,
    small_log, snapshot, start, start_with,
};
use crate::{
    auth::WatchTarget,
    engine::WatchEvent,
    model::{Content, Filter, Metadata, Parts, Revision},
    store::MemoryStore,
};

#[tokio::test(start_paused = true)]
async fn watch_has_a_snapshot_and_then_changes() {
    let test = start();
    test.register("s", "a", 60_000).await;
    test.register("t", "x", 60_000).await;
    let mut watch = test.watch(&["s", "u"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["a"]), 2));
    test.register("u", "b", 60_000).await;
    assert_eq!(next_event(&mut watch).await, (changes([("added", "b")]), 3));
    test.update("s", "a", weight(1)).await;
    test.register("t", "y", 60_000).await;
    test.register("s", "a", 60_000).await;
    test.deregister("u", "b").await;
    let seen = changes([("updated", "a"), ("replaced", "a"), ("evicted", "b")]);
    assert_eq!(next_event(&mut watch).await, (seen, 7));
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_namespace_has_all_its_services() {
    let test = start();
    test.register("n/s", "a", 60_000).await;
    test.register("n/t", "b", 60_000).await;
    test.register("m/s", "x", 60_000).await;
    let subjects = WatchTarget::Namespace(name("n"));
    let mut watch = test.engine.watch(may_watch(subjects), Filter::default(), None);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["a", "b"]), 3));
    test.register("n/new", "c", 60_000).await;
    test.register("m/new", "y", 60_000).await;
    test.deregister("n/s", "a").await;
    assert_eq!(next_event(&mut watch).await, (changes([("added", "c"), ("evicted", "a")]), 6));
}

#[tokio::test(start_paused = true)]
async fn waiting_watch_wakes_for_a_change() {
    for subjects in [named(&["n/s", "n/t"]), WatchTarget::Namespace(name("n"))] {
        let test = start();
        let mut watch = test.engine.watch(may_watch(subjects), Filter::default(), None);
        assert_eq!(next_event(&mut watch).await, (snapshot(&[]), 0));
        let write = async { test.register("n/s", "a", 9_000).await };
        let (seen, _) = futures_util::join!(next_event(&mut watch), write);
        assert_eq!(seen, (changes([("added", "a")]), 1));
        assert_eq!(test.clock.tick().0, 0, "at once");
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_watch_has_an_idle_event_within_10_s() {
    let test = start_with(MemoryStore, &small_log(2));
    test.register("quiet", "q", 3_600_000).await;
    let mut watch = test.watch(&["quiet"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["q"]), 1));
    for round in 1..=5 {
        let before = test.clock.tick().0;
        // More changes than the log has: the watch does not fall behind by them.
        for instance in ["a", "b", "c"] {
            test.register("busy", &format!("{instance}{round}"), 3_600_000).await;
        }
        assert_eq!(next_event(&mut watch).await, (SeenEvent::Idle, 1 + round * 3));
        let silent_ms = test.clock.tick().0 - before;
        assert!((1_000..=10_000).contains(&silent_ms), "{silent_ms} ms");
    }
    let gone = test.deregister("quiet", "q").await;
    assert_eq!(next_event(&mut watch).await, (changes([("evicted", "q")]), gone.0));
    // An empty service is removed: its changes are unknown from then on.
    for instance in ["a", "b", "c"] {
        test.register("other", instance, 3_600_000).await;
    }
    assert_eq!(next_event(&mut watch).await, (snapshot(&[]), gone.0 + 3));
}

#[tokio::test(start_paused = true)]
async fn watch_without_matches_has_an_idle_event_within_10_s() {
    let test = start();
    test.register("s", "a", 3_600_000).await;
    let mut watch = test.engine.watch(may_watch(named(&["s"])), in_zone("z"), None);
    assert_eq!(next_event(&mut watch).await, (snapshot(&[]), 1));
    let writes = async {
        for round in 0..150 {
            test.update("s", "a", weight(round)).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let reads = async {
        let (seen, revision) = next_event(&mut watch).await;
        assert_eq!(seen, SeenEvent::Idle);
        assert!(test.clock.tick().0 <= 10_000);
        // The last write may be in progress.
        assert!(revision > 70 && test.revision().0 - revision <= 1, "{revision}");
    };
    futures_util::join!(writes, reads);
}

#[tokio::test(start_paused = true)]
async fn instances_enter_and_leave_a_filter() {
    let test = start();
    test.register("s", "a", 60_000).await;
    test.register("s", "b", 60_000).await;
    test.update("s", "a", zone("z")).await;
    let mut watch = test.engine.watch(may_watch(named(&["s"])), in_zone("z"), None);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["a"]), 3));
    test.update("s", "b", weight(1)).await;
    test.update("s", "b", zone("z")).await;
    test.update("s", "b", weight(2)).await;
    test.update("s", "a", zone("y")).await;
    test.deregister("s", "a").await;
    test.deregister("s", "b").await;
    let seen = [("entered", "b"), ("updated", "b"), ("left", "a"), ("evicted", "b")];
    assert_eq!(next_event(&mut watch).await, (changes(seen), 9));
}

#[tokio::test(start_paused = true)]
async fn dropped_wait_loses_nothing() {
    let test = start();
    let mut watch = test.watch(&["s"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&[]), 0));
    for round in 1..=20 {
        assert!(timeout(Duration::from_millis(1), watch.next()).await.is_err());
        let instance = format!("i{round:02}");
        test.register("s", &instance, 60_000).await;
        assert_eq!(next_event(&mut watch).await, (changes([("added", &instance)]), round));
    }
}

#[tokio::test(start_paused = true)]
async fn watches_are_counted_while_they_are_open() {
    let test = start();
    let first = test.watch(&["s", "t"]);
    let subjects = WatchTarget::Namespace(name("n"));
    let second = test.engine.watch(may_watch(subjects), Filter::default(), None);
    assert_eq!(test.engine.status(&may_read_status()).watches, 2);
    drop(first);
    drop(second);
    assert_eq!(test.engine.status(&may_read_status()).watches, 0);
}

#[tokio::test(start_paused = true)]
async fn large_state_and_many_changes_take_several_events() {
    let test = start();
    let register = |n: usize| {
        let entries = BTreeMap::from([("k".to_owned(), "x".repeat(4_000))]);
        let metadata = Metadata::new(&entries);
        let content = Content::from(&Parts { metadata, ..parts(1) });
        test.engine.register(
            may_register(key("s")),
            id(&format!("i{n:04}")),
            content,
            terms(60_000),
        )
    };
    let mut follower = test.watch(&["s"]);
    assert_eq!(next_event(&mut follower).await, (snapshot(&[]), 0));
    assert!(join_all((0..1_000).map(register)).await.iter().all(Result::is_ok));
    let mut parts = 0;
    let mut watch = test.watch(&["s"]);
    loop {
        let (event, cursor) = watch.next().await;
        assert_eq!(cursor.revision, Revision(1_000));
        let WatchEvent::Snapshot { last, .. } = event else { panic!("{event:?}") };
        parts += 1;
        if last {
            break;
        }
    }
    // 4 MB in parts that end once they exceed 64 KiB; a chunk has up to 64 instances.
    assert!((15..=70).contains(&parts), "{parts}");
    let (mut events, mut position) = (0, 0);
    while position < 1_000 {
        let (event, cursor) = follower.next().await;
        let WatchEvent::Changes(changes) = event else { panic!("{event:?}") };
        assert!(changes.len() <= 256);
        position += changes.len() as u64;
        assert_eq!(cursor.revision, Revision(position));
        events += 1;
    }
    assert!((60..=80).contains(&events), "4 MB in events of up to 64 KiB: {events}");
}
