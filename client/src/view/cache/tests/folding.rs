//! Folding of snapshots and changes, and what is a violation.

use super::*;

#[test]
fn who_begins_to_serve_is_new_for_a_while() {
    let now = clock::now();
    let mut cache = filled(now);
    assert!(cold(&cache, now).is_empty(), "nobody is, of those that were there before");
    let second = Duration::from_secs(1);
    let mut down = change(ChangeKind::Updated, "a", 6);
    down.instance.as_mut().unwrap().set_status(Status::Down);
    let news = vec![down, change(ChangeKind::Added, "c", 7)];
    cache.fold(changes("h", 7, news), now + second).unwrap();
    assert_eq!(cold(&cache, now + second), ["c"]);
    let up = vec![change(ChangeKind::Updated, "a", 8), change(ChangeKind::Updated, "b", 9)];
    cache.fold(changes("h", 9, up), now + 6 * second).unwrap();
    assert_eq!(cold(&cache, now + 6 * second), ["a", "c"]);
    cache.fold(part("h", 10, &["a", "b", "c", "d"], true), now + 12 * second).unwrap();
    assert_eq!(cold(&cache, now + 12 * second), ["a", "d"]);
    assert!(cold(&cache, now + 22 * second).is_empty());
}

#[test]
fn a_snapshot_in_parts_is_swapped_in_at_the_last() {
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
fn it_is_whole_but_for_half_a_snapshot_and_after_a_violation() {
    let now = clock::now();
    assert!(!Cache::new(HOLD, Arc::default()).is_complete());
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
fn half_a_snapshot_is_void_after_a_disconnect() {
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
    let news = vec![
        change(ChangeKind::Added, "c", 6),
        change(ChangeKind::Removed, "a", 7),
        change(ChangeKind::Updated, "b", 9),
    ];
    assert_eq!(cache.fold(changes("h", 10, news), now), Ok(CacheChange::Changed));
    assert_eq!(ids(&cache), ["b", "c"]);
    assert_eq!(cache.view().instance("b").unwrap().modified_revision, 9);
    assert_eq!(cache.view().cursor().revision, 10);
}

#[test]
fn idle_moves_the_cursor_alone() {
    let now = clock::now();
    let mut cache = filled(now);
    assert_eq!(cache.fold(idle("h", 100), now), Ok(CacheChange::Unchanged));
    assert_eq!(cache.cursor().unwrap().revision, 100);
    assert_eq!(ids(&cache), ["a", "b"]);
}

#[test]
fn what_can_not_be_true_is_a_violation() {
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
    // The first of the two is in when the second shows that something is wrong.
    let news = vec![change(ChangeKind::Added, "c", 2), change(ChangeKind::Removed, "d", 3)];
    let violation = cache.fold(changes("new", 3, news), now);
    assert_eq!(violation, Err(WatchViolation::Unknown { revision: 3 }));
    assert_eq!(cache.cursor(), None, "nothing to resume from");
    assert_eq!(cache.expire_missing(now + HOLD), CacheChange::Unchanged, "nothing to be shown");
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
        Cache::new(HOLD, Arc::default()).fold(changes("h", 6, vec![]), now),
        Err(WatchViolation::NoState)
    );
    assert_eq!(
        Cache::new(HOLD, Arc::default()).fold(idle("h", 6), now),
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
