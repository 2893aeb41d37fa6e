//! Instances that a registry lacks after it lost its history.

use super::*;

#[test]
fn a_new_empty_history_does_not_empty_the_view() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    assert_eq!(ids(&cache), ["a", "b"]);
    assert_eq!(cache.next_expiry(), Some(now + KEEP));
    assert_eq!(missing(&cache), [("a".into(), now + KEEP), ("b".into(), now + KEEP)]);
    // One registers again, the other does not.
    cache.fold(changes("new", 1, vec![change(ChangeKind::Added, "a", 1)]), now).unwrap();
    assert_eq!(missing(&cache), [("b".into(), now + KEEP)]);
    assert_eq!(cache.expire_missing(now + KEEP - Duration::from_millis(1)), CacheChange::Unchanged);
    assert_eq!(ids(&cache), ["a", "b"]);
    assert_eq!(cache.expire_missing(now + KEEP), CacheChange::Changed);
    assert_eq!(ids(&cache), ["a"]);
    assert_eq!(cache.next_expiry(), None);
}

#[test]
fn missing_instances_stay_longer_while_the_registry_is_unreachable() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let lost = now + KEEP / 3;
    cache.disconnected(lost);
    cache.disconnected(lost + KEEP);
    assert_eq!(
        (cache.next_expiry(), cache.expire_missing(now + 10 * KEEP)),
        (None, CacheChange::Unchanged)
    );
    assert_eq!(ids(&cache), ["a", "b"]);
    let back = lost + 10 * KEEP;
    assert_eq!(cache.fold(idle("new", 0), back), Ok(CacheChange::Changed), "the end has moved");
    let until = now + 11 * KEEP;
    assert_eq!(missing(&cache), [("a".into(), until), ("b".into(), until)]);
    assert_eq!(cache.fold(idle("new", 0), back), Ok(CacheChange::Unchanged));
    assert_eq!(cache.expire_missing(until), CacheChange::Changed);
}

#[test]
fn a_missing_instance_that_registered_again_can_be_removed() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let changed = vec![change(ChangeKind::Added, "a", 1), change(ChangeKind::Removed, "a", 2)];
    cache.fold(changes("new", 2, changed), now).unwrap();
    assert_eq!(ids(&cache), ["b"]);
}

#[test]
fn a_new_snapshot_of_the_same_history_keeps_missing_instances() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let later = now + Duration::from_secs(5);
    cache.fold(part("new", 1, &["c"], true), later).unwrap();
    assert_eq!(ids(&cache), ["a", "b", "c"]);
    assert_eq!(cache.next_expiry(), Some(now + KEEP));
    // An instance that the present history had and lacks now is dropped at once.
    cache.fold(part("new", 2, &[], true), later).unwrap();
    assert_eq!(ids(&cache), ["a", "b"]);
}

#[test]
fn another_new_history_keeps_missing_instances_for_the_whole_time_again() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let later = now + Duration::from_secs(5);
    cache.fold(part("newer", 0, &[], true), later).unwrap();
    assert_eq!(cache.next_expiry(), Some(later + KEEP));
}

#[test]
fn with_no_time_for_missing_instances_a_new_history_replaces_all() {
    let now = clock::now();
    let mut cache = Cache::new(Duration::ZERO, Arc::default());
    cache.fold(part("h", 5, &["a", "b"], true), now).unwrap();
    cache.fold(part("new", 0, &["a"], true), now).unwrap();
    assert_eq!(ids(&cache), ["a"]);
}

/// The cache of a process that restarts with the view of `filled`, `b` missing.
fn restored(now: Instant) -> Cache {
    let cursor = Cursor { history_id: "h".into(), revision: 5 };
    let mut cache = Cache::new(KEEP, Arc::default());
    cache.restore(cursor, vec![instance("a", 1)], vec![instance("b", 1)], now);
    cache
}

#[test]
fn a_stored_view_resumes_with_exact_changes() {
    let now = clock::now();
    let mut cache = restored(now);
    assert_eq!((ids(&cache), missing(&cache).len()), (vec!["a".into(), "b".into()], 1));
    assert_eq!(cache.cursor().unwrap().revision, 5);
    let changed = vec![change(ChangeKind::Removed, "a", 6), change(ChangeKind::Added, "b", 7)];
    cache.fold(changes("h", 7, changed), now).unwrap();
    assert_eq!((ids(&cache), missing(&cache)), (vec!["b".into()], vec![]));
}

#[test]
fn a_stored_view_of_another_history_becomes_missing() {
    let now = clock::now();
    let mut cache = restored(now);
    cache.fold(part("new", 0, &[], true), now + KEEP / 2).unwrap();
    assert_eq!(ids(&cache), ["a", "b"]);
    assert_eq!(cache.expire_missing(now + KEEP / 2 + KEEP), CacheChange::Changed);
    assert!(ids(&cache).is_empty());
}

#[test]
fn instances_missing_when_stored_stay_for_the_whole_time_again() {
    let now = clock::now();
    let mut cache = restored(now);
    let later = now + 10 * KEEP;
    assert_eq!(
        cache.expire_missing(later),
        CacheChange::Unchanged,
        "no registry has responded yet"
    );
    cache.fold(idle("h", 6), later).unwrap();
    assert_eq!(cache.expire_missing(later + KEEP), CacheChange::Changed);
    assert_eq!(ids(&cache), ["a"]);
}
