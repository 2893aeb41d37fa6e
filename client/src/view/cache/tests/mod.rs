//! Tests of the cache: folding and violations, instances that a new history lacks, and a model.

mod folding;
mod missing;
mod model;

use super::*;
use crate::{
    proto::{Change, Changes, Idle, Status},
    runtime::clock,
};

const KEEP: Duration = Duration::from_secs(15);

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

/// A cache with `a` and `b` at revision 5 of history `h`.
fn filled(now: Instant) -> Cache {
    let mut cache = Cache::new(KEEP, Arc::default());
    assert_eq!(cache.fold(part("h", 5, &["a", "b"], true), now), Ok(CacheChange::Changed));
    cache
}

fn refuses(message: WatchResponse, violation: &WatchViolation) {
    let now = clock::now();
    assert_eq!(filled(now).fold(message, now).as_ref(), Err(violation));
}

/// The instances in slow start.
fn cold(cache: &Cache, now: Instant) -> Vec<String> {
    let (view, window) = (cache.view(), 10_000);
    let now = view.stats().advance(now);
    let endpoints = view.serving_endpoints().as_slice().iter();
    let cold = endpoints.filter(|endpoint| endpoint.warmth(now, window) < 1.0);
    cold.map(|endpoint| endpoint.instance().id.clone()).collect()
}
