//! Watches that resume, and those that start over with a snapshot.

use waypost_core::testing::weight;

use super::{Told, changes, small_log, snapshot, start, start_with, told};
use crate::{
    model::{Cursor, HistoryId, Revision},
    store::MemoryStore,
};

#[tokio::test(start_paused = true)]
async fn a_service_that_was_forgotten_and_came_back_is_told_anew() {
    let running = start_with(MemoryStore, &small_log(2));
    running.register("s", "a", 60_000).await;
    let mut watch = running.watch(&["s"]);
    assert_eq!(told(&mut watch).await, (snapshot(&["a"]), 1));
    running.deregister("s", "a").await;
    running.register("t", "x", 60_000).await;
    running.register("t", "y", 60_000).await;
    running.register("s", "b", 60_000).await;
    // Nothing in the log says that the first instance left.
    assert_eq!(told(&mut watch).await, (snapshot(&["b"]), 5));
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_at_its_cursor() {
    let running = start();
    for instance in ["a", "b", "c"] {
        running.register("s", instance, 60_000).await;
    }
    let mut watch = running.resume(&["s"], running.cursor(1));
    assert_eq!(told(&mut watch).await, (changes([("added", "b"), ("added", "c")]), 3));
    let mut watch = running.resume(&["s"], running.cursor(3));
    assert_eq!(told(&mut watch).await, (Told::Idle, 3), "it is told at once where it stands");
    assert_eq!(running.clock.tick().0, 0);
    running.deregister("s", "a").await;
    assert_eq!(told(&mut watch).await, (changes([("evicted", "a")]), 4));
    let mut watch = running.resume(&["t"], running.cursor(0));
    assert_eq!(told(&mut watch).await, (Told::Idle, 4));
}

#[tokio::test(start_paused = true)]
async fn a_resumption_that_the_log_does_not_hold_gets_a_snapshot() {
    let running = start_with(MemoryStore, &small_log(3));
    for instance in ["a", "b", "c", "d", "e"] {
        running.register("s", instance, 60_000).await;
    }
    let whole = || snapshot(&["a", "b", "c", "d", "e"]);
    let below = running.cursor(1);
    assert_eq!(told(&mut running.resume(&["s"], below)).await, (whole(), 5));
    let ahead = running.cursor(6);
    assert_eq!(told(&mut running.resume(&["s"], ahead)).await, (whole(), 5));
    let other = Cursor { history: HistoryId::random(), revision: Revision(4) };
    assert_eq!(told(&mut running.resume(&["s"], Some(other))).await, (whole(), 5));
    let seen = changes([("added", "c"), ("added", "d"), ("added", "e")]);
    assert_eq!(told(&mut running.resume(&["s"], running.cursor(2))).await, (seen, 5));
    // The log moves on between the call and the first look.
    let mut late = running.resume(&["s"], running.cursor(2));
    running.register("s", "f", 60_000).await;
    assert_eq!(told(&mut late).await, (snapshot(&["a", "b", "c", "d", "e", "f"]), 6));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_behind_the_log_starts_over() {
    let running = start_with(MemoryStore, &small_log(3));
    running.register("s", "a", 60_000).await;
    let mut watch = running.watch(&["s"]);
    assert_eq!(told(&mut watch).await, (snapshot(&["a"]), 1));
    for round in 1..=3 {
        running.update("s", "a", weight(round)).await;
    }
    let seen = changes([("updated", "a"), ("updated", "a"), ("updated", "a")]);
    assert_eq!(told(&mut watch).await, (seen, 4), "just within the log");
    running.deregister("s", "a").await;
    for instance in ["b", "c", "d"] {
        running.register("s", instance, 60_000).await;
    }
    assert_eq!(told(&mut watch).await, (snapshot(&["b", "c", "d"]), 8));
    running.deregister("s", "c").await;
    assert_eq!(told(&mut watch).await, (changes([("evicted", "c")]), 9));
}
