//! A model: a registry that is changed, restarted and cut off at random. The folded state must
//! equal its state after every message.

use super::*;

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

    /// The messages that a watch at `cursor` receives next.
    fn next_messages(
        &self,
        cursor: Option<&Cursor>,
        random: &mut fastrand::Rng,
    ) -> Vec<WatchResponse> {
        let known = cursor.filter(|cursor| cursor.history_id == self.name());
        let Some(known) = known.filter(|_| random.u8(..10) > 0) else {
            return self.snapshot(random);
        };
        let changed: Vec<Change> =
            self.log.iter().filter(|change| change.revision > known.revision).cloned().collect();
        if changed.is_empty() {
            return vec![idle(&self.name(), self.revision)];
        }
        let cut = random.usize(1..=changed.len());
        let mut messages = Vec::new();
        for piece in [&changed[..cut], &changed[cut..]] {
            if let Some(last) = piece.last() {
                messages.push(changes(&self.name(), last.revision, piece.to_vec()));
            }
        }
        messages
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
fn the_folded_state_equals_the_registrys_after_every_message() {
    for _ in 0..200 {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        run_model(&mut fastrand::Rng::with_seed(seed));
    }
}

fn run_model(random: &mut fastrand::Rng) {
    let mut now = clock::now();
    let mut registry = Registry::start(0);
    let mut cache = Cache::new(KEEP, Arc::default());
    // When each instance that only an earlier history had is dropped.
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
        let messages = registry.next_messages(cache.cursor(), random);
        let away = away_since.take().map_or(Duration::ZERO, |since| now - since);
        missing.values_mut().chain(missing_at_most.values_mut()).for_each(|until| *until += away);
        // A stream that breaks within a snapshot changes nothing.
        if messages.len() > 1 && messages[0].event.as_ref().is_some_and(is_part) && random.bool() {
            cache.fold(messages[0].clone(), now).unwrap();
            cache.disconnected(now);
            away_since = Some(now);
            continue;
        }
        let before = ids(&cache);
        for message in messages {
            cache.fold(message, now).unwrap();
        }
        if history != Some(registry.history) {
            missing = before.into_iter().map(|id| (id, now + KEEP)).collect();
            missing_at_most = missing.clone();
            history = Some(registry.history);
        }
        cache.expire_missing(now);
        // An instance that was ever registered in the present history is not missing any more.
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
    // A snapshot does not show instances that came and went meanwhile: those may stay missing.
    assert!(
        rest.iter().all(|id| missing_at_most.contains_key(*id)),
        "{missing_at_most:?}, {rest:?}"
    );
    assert_eq!(view.cursor().revision, registry.revision);
}
