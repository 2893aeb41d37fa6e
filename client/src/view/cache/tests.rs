//! Folding, violations, holds, and a model: a registry that is changed, restarted and cut off at
//! random, whose state the folded one must equal after every message.

use super::*;
use crate::{
    proto::{Change, Changes, Idle, Status},
    runtime::clock,
};

const HOLD: Duration = Duration::from_secs(15);

fn instance(id: &str, revision: u64) -> Instance {
    Instance {
        service: "orders".into(),
        id: id.into(),
        host: "10.0.0.1".into(),
        port: 80,
        status: Status::Up.into(),
        weight: Some(100),
        modified_revision: revision,
        ..Instance::default()
    }
}

fn message(history: &str, revision: u64, event: Event) -> WatchResponse {
    let cursor = Some(Cursor { history_id: history.into(), revision });
    WatchResponse { cursor, event: Some(event) }
}

fn part(history: &str, revision: u64, ids: &[&str], last: bool) -> WatchResponse {
    let instances = ids.iter().map(|id| instance(id, 1)).collect();
    message(history, revision, Event::Snapshot(proto::Snapshot { instances, last }))
}

fn change(kind: ChangeKind, id: &str, revision: u64) -> Change {
    Change { kind: kind.into(), instance: Some(instance(id, revision)), reason: 0, revision }
}

fn changes(history: &str, revision: u64, changes: Vec<Change>) -> WatchResponse {
    message(history, revision, Event::Changes(Changes { changes }))
}

fn idle(history: &str, revision: u64) -> WatchResponse {
    message(history, revision, Event::Idle(Idle {}))
}

fn ids(cache: &Cache) -> Vec<String> {
    cache.view().instances().map(|instance| instance.id.clone()).collect()
}

fn missing(cache: &Cache) -> Vec<(String, Instant)> {
    cache.view().missing().map(|(instance, until)| (instance.id.clone(), until)).collect()
}

/// A cache that knows `a` and `b` at revision 5 of history `h`.
fn filled(now: Instant) -> Cache {
    let mut cache = Cache::new(HOLD, Arc::default());
    assert_eq!(cache.fold(part("h", 5, &["a", "b"], true), now), Ok(CacheChange::Changed));
    cache
}

fn refuses(message: WatchResponse, violation: &WatchViolation) {
    let now = clock::now();
    assert_eq!(filled(now).fold(message, now).as_ref(), Err(violation));
}

/// Those that are to get less than their share, as they take traffic only since shortly before `now`.
fn cold(cache: &Cache, now: Instant) -> Vec<String> {
    let (view, window) = (cache.view(), 10_000);
    let now = view.stats().advance(now);
    let endpoints = view.serving_endpoints().as_slice().iter();
    let cold = endpoints.filter(|endpoint| endpoint.warmth(now, window) < 1.0);
    cold.map(|endpoint| endpoint.instance().id.clone()).collect()
}

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

/// A registry with one service, as a watch shows it.
struct Registry {
    history: u64,
    revision: u64,
    instances: BTreeMap<String, Instance>,
    log: Vec<Change>,
}

impl Registry {
    fn start(history: u64) -> Self {
        Self { history, revision: 0, instances: BTreeMap::new(), log: Vec::new() }
    }

    fn name(&self) -> String {
        format!("history-{}", self.history)
    }

    fn change(&mut self, random: &mut fastrand::Rng) {
        // Other services' changes take revisions too.
        self.revision += random.u64(1..4);
        let id = format!("i{}", random.u8(..12));
        let known = self.instances.contains_key(&id);
        let kind = match (known, random.bool()) {
            (false, _) => ChangeKind::Added,
            (true, false) => ChangeKind::Updated,
            (true, true) => ChangeKind::Removed,
        };
        let mut changed = change(kind, &id, self.revision);
        if kind == ChangeKind::Removed {
            changed.instance = self.instances.remove(&id);
        } else {
            self.instances
                .insert(id, instance(&changed.instance.as_ref().unwrap().id, self.revision));
        }
        self.log.push(changed);
    }

    /// What a watch that stands at `cursor` is sent next.
    fn tell(&self, cursor: Option<&Cursor>, random: &mut fastrand::Rng) -> Vec<WatchResponse> {
        let known = cursor.filter(|cursor| cursor.history_id == self.name());
        let Some(known) = known.filter(|_| random.u8(..10) > 0) else {
            return self.snapshot(random);
        };
        let news: Vec<Change> =
            self.log.iter().filter(|change| change.revision > known.revision).cloned().collect();
        if news.is_empty() {
            return vec![idle(&self.name(), self.revision)];
        }
        let cut = random.usize(1..=news.len());
        let mut told = Vec::new();
        for piece in [&news[..cut], &news[cut..]] {
            if let Some(last) = piece.last() {
                told.push(changes(&self.name(), last.revision, piece.to_vec()));
            }
        }
        told
    }

    fn snapshot(&self, random: &mut fastrand::Rng) -> Vec<WatchResponse> {
        let all: Vec<Instance> = self.instances.values().cloned().collect();
        let mut parts: Vec<&[Instance]> = all.chunks(random.usize(1..6)).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let count = parts.len();
        let part = |(index, instances): (usize, &&[Instance])| {
            let part = proto::Snapshot { instances: instances.to_vec(), last: index + 1 == count };
            message(&self.name(), self.revision, Event::Snapshot(part))
        };
        parts.iter().enumerate().map(part).collect()
    }
}

#[test]
fn folding_gives_the_registrys_state_whatever_happens() {
    for _ in 0..200 {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        run_model(&mut fastrand::Rng::with_seed(seed));
    }
}

fn run_model(random: &mut fastrand::Rng) {
    let mut now = clock::now();
    let mut registry = Registry::start(0);
    let mut cache = Cache::new(HOLD, Arc::default());
    // When each instance that only the past knew leaves.
    let mut missing: BTreeMap<String, Instant> = BTreeMap::new();
    let mut missing_at_most = missing.clone();
    let mut away_since = None;
    let mut history = None;
    for _ in 0..200 {
        match random.u8(..20) {
            0 => registry = Registry::start(registry.history + 1),
            1..=3 => now += Duration::from_millis(random.u64(..10_000)),
            _ => registry.change(random),
        }
        if random.u8(..3) > 0 {
            continue;
        }
        let told = registry.tell(cache.cursor(), random);
        let away = away_since.take().map_or(Duration::ZERO, |since| now - since);
        missing.values_mut().chain(missing_at_most.values_mut()).for_each(|until| *until += away);
        // A stream that breaks in the midst of a snapshot leaves things as they are.
        if told.len() > 1 && told[0].event.as_ref().is_some_and(is_part) && random.bool() {
            cache.fold(told[0].clone(), now).unwrap();
            cache.disconnected(now);
            away_since = Some(now);
            continue;
        }
        let before = ids(&cache);
        for message in told {
            cache.fold(message, now).unwrap();
        }
        if history != Some(registry.history) {
            missing = before.into_iter().map(|id| (id, now + HOLD)).collect();
            missing_at_most = missing.clone();
            history = Some(registry.history);
        }
        cache.expire_missing(now);
        // Since the history began, who was ever registered in it is not held any more.
        for change in &registry.log {
            missing.remove(&change.instance.as_ref().unwrap().id);
        }
        missing.retain(|_, until| now < *until);
        missing_at_most.retain(|_, until| now < *until);
        check(&cache, &registry, &missing, &missing_at_most);
    }
}

fn is_part(event: &Event) -> bool {
    matches!(event, Event::Snapshot(_))
}

fn check(
    cache: &Cache,
    registry: &Registry,
    missing: &BTreeMap<String, Instant>,
    missing_at_most: &BTreeMap<String, Instant>,
) {
    let view = cache.view();
    let (registered, rest): (Vec<_>, Vec<_>) = view
        .instances()
        .cloned()
        .partition(|instance| registry.instances.contains_key(&instance.id));
    assert!(registered.iter().eq(registry.instances.values()));
    let rest: Vec<&String> = rest.iter().map(|instance| &instance.id).collect();
    assert!(missing.keys().all(|id| rest.contains(&id)), "{missing:?} missing, {rest:?} found");
    // A snapshot does not tell who came and went meanwhile: such a one may stay held.
    assert!(
        rest.iter().all(|id| missing_at_most.contains_key(*id)),
        "{missing_at_most:?}, {rest:?}"
    );
    assert_eq!(view.cursor().revision, registry.revision);
}
