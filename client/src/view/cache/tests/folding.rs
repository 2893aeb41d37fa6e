//! Folding of snapshots and changes, and what is a violation.

use super::*;

#[test]
fn slow_start_begins_when_an_instance_begins_to_serve() {
    let now = clock::now();
    let mut cache = filled(now);
    assert!(cold(&cache, now).is_empty(), "not those of the first snapshot");
    let second = Duration::from_secs(1);
    let mut down = change(ChangeKind::Updated, "a", 6);
    down.instance.as_mut().unwrap().set_status(Status::Down);
    let changed = vec![down, change(ChangeKind::Added, "c", 7)];
    cache.fold(changes("h", 7, changed), now + second).unwrap();
    assert_eq!(cold(&cache, now + second), ["c"]);
    let up = vec![change(ChangeKind::Updated, "a", 8), change(ChangeKind::Updated, "b", 9)];
    cache.fold(changes("h", 9, up), now + 6 * second).unwrap();
    assert_eq!(cold(&cache, now + 6 * second), ["a", "c"]);
    cache.fold(part("h", 10, &["a", "b", "c", "d"], true), now + 12 * second).unwrap();
    assert_eq!(cold(&cache, now + 12 * second), ["a", "d"]);
    assert!(cold(&cache, now + 22 * second).is_empty());
}

#[test]
fn a_snapshot_in_parts_takes_effect_with_the_last() {
    let now = clock::now();
    let mut cache = filled(now);
    assert_eq!(cache.fold(part("h", 9, &["c"], false), now), Ok(CacheChange::Unchanged));
    assert_eq!(ids(&cache), ["a", "b"]);
    assert_eq!(cache.cursor().unwrap().revision, 5);
    assert_eq!(cache.fold(part("h", 9, &["d"], true), now), Ok(CacheChange::Changed));
    assert_eq!(ids(&cache), ["c", "d"]);
    assert_eq!(cache.cursor().unwrap().revision, 9);
}

#[test]
fn a_cache_is_complete_except_within_a_snapshot_and_after_a_violation() {
    let now = clock::now();
    assert!(!Cache::new(KEEP, Arc::default()).is_complete());
    let mut cache = filled(now);
    assert!(cache.is_complete());
    cache.fold(part("h", 9, &["c"], false), now).unwrap();
    assert!(!cache.is_complete());
    cache.fold(part("h", 9, &["d"], true), now).unwrap();
    assert!(cache.is_complete());
    cache.fold(idle("h", 4), now).unwrap_err();
    assert!(!cache.is_complete());
}

#[test]
fn a_partial_snapshot_is_dropped_after_a_disconnect() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("h", 9, &["c"], false), now).unwrap();
    cache.disconnected(now);
    cache.fold(idle("h", 6), now).unwrap();
    assert_eq!(ids(&cache), ["a", "b"]);
    cache.fold(part("h", 9, &["d"], true), now).unwrap();
    assert_eq!(ids(&cache), ["d"]);
}

#[test]
fn changes_are_applied_in_order() {
    let now = clock::now();
    let mut cache = filled(now);
    let changed = vec![
        change(ChangeKind::Added, "c", 6),
        change(ChangeKind::Removed, "a", 7),
        change(ChangeKind::Updated, "b", 9),
    ];
    assert_eq!(cache.fold(changes("h", 10, changed), now), Ok(CacheChange::Changed));
    assert_eq!(ids(&cache), ["b", "c"]);
    assert_eq!(cache.view().instance("b").unwrap().modified_revision, 9);
    assert_eq!(cache.view().cursor().revision, 10);
}

#[test]
fn idle_moves_only_the_cursor() {
    let now = clock::now();
    let mut cache = filled(now);
    assert_eq!(cache.fold(idle("h", 100), now), Ok(CacheChange::Unchanged));
    assert_eq!(cache.cursor().unwrap().revision, 100);
    assert_eq!(ids(&cache), ["a", "b"]);
}

#[test]
fn impossible_messages_are_violations() {
    refuses(
        WatchResponse { cursor: None, event: Some(Event::Idle(Idle {})) },
        &WatchViolation::Incomplete,
    );
    refuses(WatchResponse { event: None, ..idle("h", 6) }, &WatchViolation::Incomplete);
    refuses(idle("h", 4), &WatchViolation::Order { last: 5, found: 4 });
    refuses(idle("other", 6), &WatchViolation::History);
    refuses(changes("other", 6, vec![]), &WatchViolation::History);
    let repeated = vec![change(ChangeKind::Added, "c", 5)];
    refuses(changes("h", 6, repeated), &WatchViolation::Order { last: 5, found: 5 });
    let disordered = vec![change(ChangeKind::Added, "c", 7), change(ChangeKind::Added, "d", 6)];
    refuses(changes("h", 7, disordered), &WatchViolation::Order { last: 7, found: 6 });
    let beyond = vec![change(ChangeKind::Added, "c", 7)];
    refuses(changes("h", 6, beyond), &WatchViolation::Order { last: 7, found: 6 });
    let unknown = vec![change(ChangeKind::Updated, "c", 6)];
    refuses(changes("h", 6, unknown), &WatchViolation::Unknown { revision: 6 });
    let gone = vec![change(ChangeKind::Removed, "c", 6)];
    refuses(changes("h", 6, gone), &WatchViolation::Unknown { revision: 6 });
    let twice = vec![change(ChangeKind::Added, "a", 6)];
    refuses(changes("h", 6, twice), &WatchViolation::Duplicate { revision: 6 });
    let vague = vec![Change { kind: 99, ..change(ChangeKind::Added, "c", 6) }];
    refuses(changes("h", 6, vague), &WatchViolation::Kind { revision: 6 });
    let empty = vec![Change { instance: None, ..change(ChangeKind::Added, "c", 6) }];
    refuses(changes("h", 6, empty), &WatchViolation::Incomplete);
}

#[test]
fn after_a_violation_only_a_snapshot_counts() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 1, &["b"], true), now).unwrap();
    // The first change is applied before the second one turns out to be wrong.
    let changed = vec![change(ChangeKind::Added, "c", 2), change(ChangeKind::Removed, "d", 3)];
    let violation = cache.fold(changes("new", 3, changed), now);
    assert_eq!(violation, Err(WatchViolation::Unknown { revision: 3 }));
    assert_eq!(cache.cursor(), None, "nothing to resume from");
    assert_eq!(cache.expire_missing(now + KEEP), CacheChange::Unchanged, "nothing to publish");
    cache.disconnected(now);
    assert_eq!(cache.cursor(), None, "however often the connection breaks");
    assert_eq!(cache.fold(idle("new", 4), now), Err(WatchViolation::NoState));
    cache.fold(part("new", 4, &["b"], true), now).unwrap();
    assert_eq!(ids(&cache), ["b"]);
    assert_eq!(cache.cursor().unwrap().revision, 4);
}

#[test]
fn changes_before_any_snapshot_are_a_violation() {
    let now = clock::now();
    assert_eq!(
        Cache::new(KEEP, Arc::default()).fold(changes("h", 6, vec![]), now),
        Err(WatchViolation::NoState)
    );
    assert_eq!(
        Cache::new(KEEP, Arc::default()).fold(idle("h", 6), now),
        Err(WatchViolation::NoState)
    );
}

#[test]
fn a_torn_snapshot_is_a_violation() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("h", 9, &["c"], false), now).unwrap();
    assert_eq!(cache.fold(idle("h", 9), now), Err(WatchViolation::TornSnapshot));
    assert_eq!(cache.fold(part("h", 10, &["c"], true), now), Err(WatchViolation::TornSnapshot));
}

#[test]
fn calls_in_flight_survive_updates_and_snapshots() {
    let now = clock::now();
    let mut cache = filled(now);
    let in_flight = |cache: &Cache| cache.entries["a"].endpoint.in_flight();
    cache.entries["a"].endpoint.begin();
    cache.fold(changes("h", 6, vec![change(ChangeKind::Updated, "a", 6)]), now).unwrap();
    assert_eq!(in_flight(&cache), 1);
    cache.fold(part("h", 7, &["a"], true), now).unwrap();
    assert_eq!(in_flight(&cache), 1);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    assert_eq!(in_flight(&cache), 1);
    cache.fold(changes("new", 1, vec![change(ChangeKind::Added, "a", 1)]), now).unwrap();
    assert_eq!(in_flight(&cache), 1);
}
