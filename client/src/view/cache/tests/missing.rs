//! Instances that a registry lacks after it lost its history.

use super::*;

#[test]
fn an_emptier_history_does_not_empty_the_view() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    assert_eq!(ids(&cache), ["a", "b"]);
    assert_eq!(cache.next_expiry(), Some(now + HOLD));
    assert_eq!(missing(&cache), [("a".into(), now + HOLD), ("b".into(), now + HOLD)]);
    // One comes back, one does not.
    cache.fold(changes("new", 1, vec![change(ChangeKind::Added, "a", 1)]), now).unwrap();
    assert_eq!(missing(&cache), [("b".into(), now + HOLD)]);
    assert_eq!(cache.expire_missing(now + HOLD - Duration::from_millis(1)), CacheChange::Unchanged);
    assert_eq!(ids(&cache), ["a", "b"]);
    assert_eq!(cache.expire_missing(now + HOLD), CacheChange::Changed);
    assert_eq!(ids(&cache), ["a"]);
    assert_eq!(cache.next_expiry(), None);
}

#[test]
fn a_hold_stands_still_while_the_registry_is_away_again() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let lost = now + HOLD / 3;
    cache.disconnected(lost);
    cache.disconnected(lost + HOLD);
    assert_eq!(
        (cache.next_expiry(), cache.expire_missing(now + 10 * HOLD)),
        (None, CacheChange::Unchanged)
    );
    assert_eq!(ids(&cache), ["a", "b"]);
    let back = lost + 10 * HOLD;
    assert_eq!(cache.fold(idle("new", 0), back), Ok(CacheChange::Changed), "until when is news");
    let until = now + 11 * HOLD;
    assert_eq!(missing(&cache), [("a".into(), until), ("b".into(), until)]);
    assert_eq!(cache.fold(idle("new", 0), back), Ok(CacheChange::Unchanged));
    assert_eq!(cache.expire_missing(until), CacheChange::Changed);
}

#[test]
fn a_held_instance_that_came_back_can_be_removed() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let news = vec![change(ChangeKind::Added, "a", 1), change(ChangeKind::Removed, "a", 2)];
    cache.fold(changes("new", 2, news), now).unwrap();
    assert_eq!(ids(&cache), ["b"]);
}

#[test]
fn a_new_snapshot_of_the_same_history_keeps_the_hold() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let later = now + Duration::from_secs(5);
    cache.fold(part("new", 1, &["c"], true), later).unwrap();
    assert_eq!(ids(&cache), ["a", "b", "c"]);
    assert_eq!(cache.next_expiry(), Some(now + HOLD));
    // What the present history knew and lacks now is gone at once.
    cache.fold(part("new", 2, &[], true), later).unwrap();
    assert_eq!(ids(&cache), ["a", "b"]);
}

#[test]
fn another_loss_of_memory_grants_a_full_hold_again() {
    let now = clock::now();
    let mut cache = filled(now);
    cache.fold(part("new", 0, &[], true), now).unwrap();
    let later = now + Duration::from_secs(5);
    cache.fold(part("newer", 0, &[], true), later).unwrap();
    assert_eq!(cache.next_expiry(), Some(later + HOLD));
}

#[test]
fn without_a_hold_a_new_history_replaces_all() {
    let now = clock::now();
    let mut cache = Cache::new(Duration::ZERO, Arc::default());
    cache.fold(part("h", 5, &["a", "b"], true), now).unwrap();
    cache.fold(part("new", 0, &["a"], true), now).unwrap();
    assert_eq!(ids(&cache), ["a"]);
}

/// The cache of a process that starts again with what `filled` knew, `b` held over.
fn restored(now: Instant) -> Cache {
    let cursor = Cursor { history_id: "h".into(), revision: 5 };
    let mut cache = Cache::new(HOLD, Arc::default());
    cache.restore(cursor, vec![instance("a", 1)], vec![instance("b", 1)], now);
    cache
}

#[test]
fn what_was_kept_goes_on_with_exact_changes() {
    let now = clock::now();
    let mut cache = restored(now);
    assert_eq!((ids(&cache), missing(&cache).len()), (vec!["a".into(), "b".into()], 1));
    assert_eq!(cache.cursor().unwrap().revision, 5);
    let news = vec![change(ChangeKind::Removed, "a", 6), change(ChangeKind::Added, "b", 7)];
    cache.fold(changes("h", 7, news), now).unwrap();
    assert_eq!((ids(&cache), missing(&cache)), (vec!["b".into()], vec![]));
}

#[test]
fn what_was_kept_of_another_history_is_held() {
    let now = clock::now();
    let mut cache = restored(now);
    cache.fold(part("new", 0, &[], true), now + HOLD / 2).unwrap();
    assert_eq!(ids(&cache), ["a", "b"]);
    assert_eq!(cache.expire_missing(now + HOLD / 2 + HOLD), CacheChange::Changed);
    assert!(ids(&cache).is_empty());
}

#[test]
fn what_was_held_when_it_was_kept_leaves_after_another_hold() {
    let now = clock::now();
    let mut cache = restored(now);
    let later = now + 10 * HOLD;
    assert_eq!(cache.expire_missing(later), CacheChange::Unchanged, "no registry was heard yet");
    cache.fold(idle("h", 6), later).unwrap();
    assert_eq!(cache.expire_missing(later + HOLD), CacheChange::Changed);
    assert_eq!(ids(&cache), ["a"]);
}
