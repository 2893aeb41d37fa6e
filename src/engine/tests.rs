//! The engine in paused time with stores that fail on demand, and watches that fold what they are
//! told beside a record of everything that was committed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use futures_util::{FutureExt, future::join_all};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};
use waypost_core::testing::{
    Identity, content, fold, id, identity, key, name, parts, seeds, terms, weight, zone,
};
use waypost_serving::tasks::Tasks;

use super::{Engine, EngineError, Subjects, Watch, WatchEvent, WatchedChange};
use crate::{
    clock::Clock,
    model::{
        Change, ChangeKind, Content, Cursor, Filter, HistoryId, Instance, LeaseId, Limits,
        Metadata, Parts, RemovalReason, Revision, ServiceKey, Status,
    },
    registry::{Outcome, Patch, Refusal, Target, Transition},
    store::{Backup, MemoryStore, Store, StoreError},
};

/// Records what is committed, and fails on demand.
#[derive(Debug, Clone, Default)]
struct TestStore {
    fails: Arc<AtomicBool>,
    /// How long a commit takes.
    commit_ms: Arc<AtomicU64>,
    committed: Arc<Mutex<Vec<Change>>>,
}

impl TestStore {
    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

impl Store for TestStore {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn commit(&mut self, transitions: &[Transition]) -> Result<(), StoreError> {
        match self.commit_ms.load(Ordering::SeqCst) {
            0 => yield_now().await,
            commit_ms => sleep(Duration::from_millis(commit_ms)).await,
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(unavailable());
        }
        self.committed.lock().extend(transitions.iter().filter_map(Transition::change));
        Ok(())
    }

    fn backup(&self) -> Result<Backup, StoreError> {
        Err(StoreError::NothingToBackUp(self.name()))
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("on demand".to_owned())
}

/// An engine, and the tasks that have to outlive the test.
struct Running {
    engine: Engine,
    clock: Clock,
    tasks: Tasks,
}

fn start_with(store: impl Store, limits: &Limits) -> Running {
    let (clock, tasks) = (Clock::start(), Tasks::default());
    let (_, nothing) = MemoryStore::open();
    let engine = Engine::start(store, nothing, limits, clock, &tasks).unwrap();
    Running { engine, clock, tasks }
}

fn start() -> Running {
    start_with(MemoryStore, &Limits::default())
}

fn small_log(log_changes_max: usize) -> Limits {
    Limits { log_changes_max, ..Limits::default() }
}

impl Running {
    async fn register(&self, service: &str, instance: &str, ttl_ms: u64) -> (LeaseId, Revision) {
        let content = content(1);
        let done = self.engine.register(key(service), id(instance), content, terms(ttl_ms)).await;
        match done {
            Ok(Outcome::Registered { lease, revision, .. }) => (lease, revision),
            other => panic!("not registered: {other:?}"),
        }
    }

    async fn update(&self, service: &str, instance: &str, patch: Patch) -> Revision {
        match self.engine.update(of(service, instance), patch).await {
            Ok(Outcome::Updated { revision, .. }) => revision,
            other => panic!("not updated: {other:?}"),
        }
    }

    async fn deregister(&self, service: &str, instance: &str) -> Revision {
        match self.engine.deregister(of(service, instance)).await {
            Ok(Outcome::Deregistered { revision }) => revision,
            other => panic!("not deregistered: {other:?}"),
        }
    }

    fn ids(&self, service: &str) -> Vec<String> {
        let (found, _) = self.engine.service(&key(service));
        let roster = found.map(|service| service.roster.clone()).unwrap_or_default();
        roster.instances().map(|instance| instance.id.to_string()).collect()
    }

    fn revision(&self) -> Revision {
        self.engine.status().cursor.revision
    }

    fn cursor(&self, revision: u64) -> Option<Cursor> {
        Some(self.engine.cursor(Revision(revision)))
    }

    fn watch(&self, services: &[&str]) -> Watch {
        self.engine.watch(named(services), Filter::default(), None)
    }

    fn resume(&self, services: &[&str], cursor: Option<Cursor>) -> Watch {
        self.engine.watch(named(services), Filter::default(), cursor)
    }
}

fn of(service: &str, instance: &str) -> Target {
    Target::Identity(key(service), id(instance))
}

fn named(services: &[&str]) -> Subjects {
    Subjects::Services(services.iter().map(|service| Arc::new(key(service))).collect())
}

fn in_zone(zone: &str) -> Filter {
    Filter { zones: vec![zone.to_owned()], ..Filter::default() }
}

/// An event in short: what a test compares.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Snapshot(Vec<String>),
    Changes(Vec<(&'static str, String)>),
    Idle,
}

fn snapshot(ids: &[&str]) -> Told {
    Told::Snapshot(ids.iter().map(|id| (*id).to_owned()).collect())
}

fn changes<const N: usize>(changes: [(&'static str, &str); N]) -> Told {
    Told::Changes(changes.map(|(kind, id)| (kind, id.to_owned())).into())
}

/// The next event, and the position after it. All snapshots here fit into one event.
async fn told(watch: &mut Watch) -> (Told, u64) {
    let (event, cursor) = watch.next().await;
    let told = match event {
        WatchEvent::Idle => Told::Idle,
        WatchEvent::Snapshot { chunks, last } => {
            assert!(last);
            let instances = chunks.iter().flat_map(|chunk| chunk.instances());
            let matching = instances.filter(|i| watch.filter().matches(&i.content));
            Told::Snapshot(matching.map(|instance| instance.id.to_string()).collect())
        }
        WatchEvent::Changes(changes) => Told::Changes(changes.iter().map(in_short).collect()),
    };
    (told, cursor.revision.0)
}

fn in_short(change: &WatchedChange) -> (&'static str, String) {
    let (kind, entry) = match change {
        WatchedChange::Entered(entry) => ("entered", entry),
        WatchedChange::Left(entry) => ("left", entry),
        WatchedChange::Whole(entry) => {
            let kind = match &entry.change.kind {
                ChangeKind::Added => "added",
                ChangeKind::Updated { replaced: false, .. } => "updated",
                ChangeKind::Updated { replaced: true, .. } => "replaced",
                ChangeKind::Removed(RemovalReason::Expired) => "expired",
                ChangeKind::Removed(RemovalReason::Evicted) => "evicted",
                ChangeKind::Removed(RemovalReason::Deregistered) => "deregistered",
                ChangeKind::Removed(RemovalReason::Disconnected) => "disconnected",
            };
            (kind, entry)
        }
    };
    (kind, entry.change.instance.id.to_string())
}

// ---------------------------------------------------------------------------------------------
// Writes and reads

#[tokio::test(start_paused = true)]
async fn a_read_after_an_answered_write_sees_it() {
    let running = start();
    for round in 0..50 {
        let instance = format!("i{round:02}");
        let (_, revision) = running.register("s", &instance, 60_000).await;
        assert!(running.ids("s").contains(&instance));
        assert!(running.engine.service(&key("s")).1.revision >= revision);
        let updated = running.update("s", &instance, weight(7)).await;
        let (found, cursor) = running.engine.service(&key("s"));
        let roster = found.unwrap().roster.clone();
        assert_eq!(roster.instances().last().unwrap().content.view().weight, 7);
        assert_eq!((updated, cursor.revision), (revision.next(), revision.next()));
    }
    running.deregister("s", "i07").await;
    assert!(!running.ids("s").contains(&"i07".to_owned()));
    assert_eq!(running.engine.status().instances, 49);
}

#[tokio::test(start_paused = true)]
async fn a_write_refused_by_the_store_never_shows_up() {
    let store = TestStore::default();
    let running = start_with(store.clone(), &Limits::default());
    let (lease, _) = running.register("s", "a", 60_000).await;
    let mut watch = running.watch(&["s", "t"]);
    assert_eq!(told(&mut watch).await, (snapshot(&["a"]), 1));
    store.fail(true);
    let engine = &running.engine;
    let refused = || Some(EngineError::Store(unavailable()));
    let added = engine.register(key("t"), id("b"), content(1), terms(60_000)).await;
    assert_eq!(added.err(), refused());
    let taken_over = engine.register(key("s"), id("a"), content(2), terms(60_000)).await;
    assert_eq!(taken_over.err(), refused());
    assert_eq!(engine.update(Target::Lease(lease), weight(1)).await.err(), refused());
    assert_eq!(engine.deregister(Target::Lease(lease)).await.err(), refused());
    let nothing = |running: &Running| {
        let service = running.engine.service(&key("s")).0.unwrap();
        assert_eq!(service.roster.instances().next().unwrap().content, content(1));
        assert_eq!((running.ids("s"), running.ids("t")), (vec!["a".to_owned()], vec![]));
        assert_eq!(running.revision(), Revision(1));
    };
    nothing(&running);
    store.fail(false);
    sleep(Duration::from_secs(1)).await;
    nothing(&running);
    assert_eq!(engine.renew(&[lease.bits()]).await, [0_u64; 0], "the lease was not fenced off");
    running.register("s", "c", 60_000).await;
    assert_eq!(told(&mut watch).await, (changes([("added", "c")]), 2));
    assert_eq!(store.committed.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_registry_needs_no_store() {
    let store = TestStore::default();
    let running = start_with(store.clone(), &Limits::default());
    store.fail(true);
    let refusal = Refusal::NoSuchInstance { service: key("s"), id: id("a") };
    let answer = running.engine.deregister(of("s", "a")).await;
    assert_eq!(answer.err(), Some(EngineError::Refused(refusal)));
}

#[tokio::test(start_paused = true)]
async fn an_instance_expires_between_its_ttl_and_100_ms_later() {
    with_seeds_async(4, async |mut random| {
        let running = start();
        for round in 0..20 {
            let ttl_ms = random.u64(1_000..5_000);
            sleep(Duration::from_millis(random.u64(..100))).await;
            let (lease, _) = running.register("s", "a", ttl_ms).await;
            let mut watch = running.watch(&["s"]);
            assert_eq!(told(&mut watch).await.0, snapshot(&["a"]));
            for _ in 0..random.u8(..4) {
                sleep(Duration::from_millis(random.u64(..ttl_ms))).await;
                assert_eq!(running.engine.renew(&[lease.bits()]).await, [0_u64; 0]);
            }
            let renewed_at = running.clock.tick().0;
            let mut seen = told(&mut watch).await.0;
            while seen == Told::Idle {
                seen = told(&mut watch).await.0;
            }
            assert_eq!(seen, changes([("expired", "a")]), "round {round}");
            let lived_ms = running.clock.tick().0 - renewed_at;
            assert!((ttl_ms..=ttl_ms + 100).contains(&lived_ms), "{lived_ms} of {ttl_ms} ms");
            assert_eq!(running.engine.renew(&[lease.bits()]).await, [lease.bits()]);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_expiry_waits_for_the_store_and_can_be_averted_meanwhile() {
    let store = TestStore::default();
    let running = start_with(store.clone(), &Limits::default());
    let (kept, _) = running.register("s", "kept", 2_000).await;
    running.register("s", "lost", 2_000).await;
    let mut watch = running.watch(&["s"]);
    assert_eq!(told(&mut watch).await, (snapshot(&["kept", "lost"]), 2));
    store.fail(true);
    sleep(Duration::from_secs(7)).await;
    assert_eq!(running.ids("s"), ["kept", "lost"]);
    assert_eq!(running.engine.renew(&[kept.bits()]).await, [0_u64; 0]);
    store.fail(false);
    let recovered_at = running.clock.tick().0;
    assert_eq!(told(&mut watch).await, (changes([("expired", "lost")]), 3));
    assert!(running.clock.tick().0 - recovered_at <= 1_100, "it is tried again every second");
    assert_eq!(told(&mut watch).await, (changes([("expired", "kept")]), 4));
    let lived_ms = running.clock.tick().0 - recovered_at;
    assert!((2_000..=2_100).contains(&lived_ms), "{lived_ms} ms");
}

#[tokio::test(start_paused = true)]
async fn a_lease_begins_when_its_registration_is_durable() {
    let store = TestStore::default();
    let running = start_with(store.clone(), &Limits::default());
    store.commit_ms.store(3_000, Ordering::SeqCst);
    running.register("s", "a", 1_000).await;
    store.commit_ms.store(0, Ordering::SeqCst);
    let answered_at = running.clock.tick().0;
    assert_eq!(answered_at, 3_000);
    let mut watch = running.watch(&["s"]);
    assert_eq!(told(&mut watch).await, (snapshot(&["a"]), 1));
    assert_eq!(told(&mut watch).await, (changes([("expired", "a")]), 2));
    let lived_ms = running.clock.tick().0 - answered_at;
    assert!((1_000..=1_100).contains(&lived_ms), "{lived_ms} ms");
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_while_a_commit_takes_long() {
    let store = TestStore::default();
    let running = start_with(store.clone(), &Limits::default());
    let (lease, _) = running.register("s", "a", 1_000).await;
    store.commit_ms.store(5_000, Ordering::SeqCst);
    let heartbeats = async {
        for _ in 0..10 {
            sleep(Duration::from_millis(500)).await;
            assert_eq!(running.engine.renew(&[lease.bits()]).await, [0_u64; 0]);
        }
    };
    futures_util::join!(running.register("s", "b", 60_000), heartbeats);
    assert_eq!(running.ids("s"), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn an_update_by_lease_renews_it() {
    let running = start();
    let (lease, _) = running.register("s", "a", 2_000).await;
    for _ in 0..5 {
        sleep(Duration::from_millis(1_500)).await;
        // Also one that changes nothing.
        assert!(running.engine.update(Target::Lease(lease), Patch::default()).await.is_ok());
    }
    sleep(Duration::from_millis(1_500)).await;
    // An operator's update is no sign of life.
    running.update("s", "a", weight(1)).await;
    sleep(Duration::from_millis(600)).await;
    assert!(running.ids("s").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_answers_that_it_is_overloaded() {
    let limits = Limits { queued_writes_max: 4, ..Limits::default() };
    let running = start_with(TestStore::default(), &limits);
    let register = |n: usize| {
        let instance = id(&format!("i{n}"));
        running.engine.register(key("s"), instance, content(1), terms(60_000))
    };
    // All of them ask before the worker gets to run.
    let answers = join_all((0..7).map(register)).await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    let overloaded = |answer: &&Result<_, _>| matches!(answer, Err(EngineError::Overloaded(4)));
    assert_eq!((taken, answers.iter().filter(overloaded).count()), (4, 3));
    assert_eq!(running.ids("s"), ["i0", "i1", "i2", "i3"]);
    assert!(register(9).await.is_ok(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_engine_stops_is_answered() {
    let running = start_with(TestStore::default(), &Limits::default());
    let register = |n: usize| {
        let instance = id(&format!("i{n}"));
        running.engine.register(key("s"), instance, content(1), terms(60_000))
    };
    let stop = async { assert!(running.tasks.join(Duration::from_secs(1)).await) };
    let (answers, ()) = futures_util::join!(join_all((0..9).map(register)), stop);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(register(9).await.err(), Some(EngineError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn renewals_name_each_lease_that_does_not_live() {
    let running = start();
    let (fenced, _) = running.register("s", "a", 60_000).await;
    let (live, _) = running.register("s", "a", 60_000).await;
    let mut leases = vec![live.bits(); 10_000];
    leases[5_000] = fenced.bits();
    leases[9_999] = 0;
    assert_eq!(running.engine.renew(&leases).await, [fenced.bits(), 0]);
}

#[tokio::test(start_paused = true)]
async fn services_are_listed_in_order_while_they_have_instances() {
    let running = start();
    for service in ["n/c", "n/a", "m/z", "n/b"] {
        running.register(service, "i", 60_000).await;
    }
    running.update("n/b", "i", Patch { status: Some(Status::Down), ..Patch::default() }).await;
    let page = |after: Option<&str>, count| {
        let after = after.map(name);
        let (services, last, _) = running.engine.services(&name("n"), after.as_ref(), count);
        let listed = services.last().filter(|_| services.len() == count);
        assert_eq!(last.as_ref(), listed.map(|service| &service.key.service));
        let line = |s: &super::ServiceSummary| format!("{} {}/{}", s.key, s.serving, s.instances);
        services.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), ["n/a 1/1", "n/b 0/1"]);
    assert_eq!(page(Some("b"), 2), ["n/c 1/1"]);
    running.deregister("n/a", "i").await;
    assert_eq!(page(None, 9), ["n/b 0/1", "n/c 1/1"]);
    assert_eq!(running.engine.status().services, 3);
}

#[tokio::test(start_paused = true)]
async fn empty_services_are_forgotten_once_the_log_dropped_their_last_change() {
    let running = start_with(MemoryStore, &small_log(8));
    let name_of = |n: usize| format!("n/s{n}");
    running.register("n/lives", "i", 3_600_000).await;
    for n in 0..200 {
        running.register(&name_of(n), "i", 60_000).await;
        running.deregister(&name_of(n), "i").await;
        let known = (0..=n).filter(|n| running.engine.service(&key(&name_of(*n))).0.is_some());
        assert!(known.count() <= 8);
    }
    assert_eq!(running.ids("n/lives"), ["i"], "its change is long out of the log");
    assert!(running.engine.service(&key(&name_of(0))).0.is_none());
    // One that comes back is another service of the same name.
    running.register(&name_of(0), "j", 60_000).await;
    assert_eq!(running.ids(&name_of(0)), ["j"]);
}

// ---------------------------------------------------------------------------------------------
// Watches

#[tokio::test(start_paused = true)]
async fn a_watch_tells_the_state_and_then_what_changes() {
    let running = start();
    running.register("s", "a", 60_000).await;
    running.register("t", "x", 60_000).await;
    let mut watch = running.watch(&["s", "u"]);
    assert_eq!(told(&mut watch).await, (snapshot(&["a"]), 2));
    running.register("u", "b", 60_000).await;
    assert_eq!(told(&mut watch).await, (changes([("added", "b")]), 3));
    running.update("s", "a", weight(1)).await;
    running.register("t", "y", 60_000).await;
    running.register("s", "a", 60_000).await;
    running.deregister("u", "b").await;
    let seen = changes([("updated", "a"), ("replaced", "a"), ("evicted", "b")]);
    assert_eq!(told(&mut watch).await, (seen, 7));
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_namespace_tells_of_all_its_services() {
    let running = start();
    running.register("n/s", "a", 60_000).await;
    running.register("n/t", "b", 60_000).await;
    running.register("m/s", "x", 60_000).await;
    let subjects = Subjects::Namespace(name("n"));
    let mut watch = running.engine.watch(subjects, Filter::default(), None);
    assert_eq!(told(&mut watch).await, (snapshot(&["a", "b"]), 3));
    running.register("n/new", "c", 60_000).await;
    running.register("m/new", "y", 60_000).await;
    running.deregister("n/s", "a").await;
    assert_eq!(told(&mut watch).await, (changes([("added", "c"), ("evicted", "a")]), 6));
}

#[tokio::test(start_paused = true)]
async fn a_watch_wakes_for_a_change_that_comes_while_it_waits() {
    for subjects in [named(&["n/s", "n/t"]), Subjects::Namespace(name("n"))] {
        let running = start();
        let mut watch = running.engine.watch(subjects, Filter::default(), None);
        assert_eq!(told(&mut watch).await, (snapshot(&[]), 0));
        let write = async { running.register("n/s", "a", 9_000).await };
        let (seen, _) = futures_util::join!(told(&mut watch), write);
        assert_eq!(seen, (changes([("added", "a")]), 1));
        assert_eq!(running.clock.tick().0, 0, "at once");
    }
}

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

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_hears_within_10_s_where_the_registry_stands() {
    let running = start_with(MemoryStore, &small_log(2));
    running.register("quiet", "q", 3_600_000).await;
    let mut watch = running.watch(&["quiet"]);
    assert_eq!(told(&mut watch).await, (snapshot(&["q"]), 1));
    for round in 1..=5 {
        let before = running.clock.tick().0;
        // More than the log holds: the watch is not behind for that.
        for instance in ["a", "b", "c"] {
            running.register("busy", &format!("{instance}{round}"), 3_600_000).await;
        }
        assert_eq!(told(&mut watch).await, (Told::Idle, 1 + round * 3));
        let silent_ms = running.clock.tick().0 - before;
        assert!((1_000..=10_000).contains(&silent_ms), "{silent_ms} ms");
    }
    let gone = running.deregister("quiet", "q").await;
    assert_eq!(told(&mut watch).await, (changes([("evicted", "q")]), gone.0));
    // An empty service is forgotten: whether something happened to it can't be told any more.
    for instance in ["a", "b", "c"] {
        running.register("other", instance, 3_600_000).await;
    }
    assert_eq!(told(&mut watch).await, (snapshot(&[]), gone.0 + 3));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_filters_everything_out_hears_within_10_s() {
    let running = start();
    running.register("s", "a", 3_600_000).await;
    let mut watch = running.engine.watch(named(&["s"]), in_zone("z"), None);
    assert_eq!(told(&mut watch).await, (snapshot(&[]), 1));
    let writes = async {
        for round in 0..150 {
            running.update("s", "a", weight(round)).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let listens = async {
        let (seen, revision) = told(&mut watch).await;
        assert_eq!(seen, Told::Idle);
        assert!(running.clock.tick().0 <= 10_000);
        // The last write may be under way.
        assert!(revision > 70 && running.revision().0 - revision <= 1, "{revision}");
    };
    futures_util::join!(writes, listens);
}

#[tokio::test(start_paused = true)]
async fn instances_enter_and_leave_a_filter() {
    let running = start();
    running.register("s", "a", 60_000).await;
    running.register("s", "b", 60_000).await;
    running.update("s", "a", zone("z")).await;
    let mut watch = running.engine.watch(named(&["s"]), in_zone("z"), None);
    assert_eq!(told(&mut watch).await, (snapshot(&["a"]), 3));
    running.update("s", "b", weight(1)).await;
    running.update("s", "b", zone("z")).await;
    running.update("s", "b", weight(2)).await;
    running.update("s", "a", zone("y")).await;
    running.deregister("s", "a").await;
    running.deregister("s", "b").await;
    let seen = [("entered", "b"), ("updated", "b"), ("left", "a"), ("evicted", "b")];
    assert_eq!(told(&mut watch).await, (changes(seen), 9));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_a_wait_is_given_up() {
    let running = start();
    let mut watch = running.watch(&["s"]);
    assert_eq!(told(&mut watch).await, (snapshot(&[]), 0));
    for round in 1..=20 {
        assert!(timeout(Duration::from_millis(1), watch.next()).await.is_err());
        let instance = format!("i{round:02}");
        running.register("s", &instance, 60_000).await;
        assert_eq!(told(&mut watch).await, (changes([("added", &instance)]), round));
    }
}

#[tokio::test(start_paused = true)]
async fn watches_are_counted_while_they_are_open() {
    let running = start();
    let first = running.watch(&["s", "t"]);
    let subjects = Subjects::Namespace(name("n"));
    let second = running.engine.watch(subjects, Filter::default(), None);
    assert_eq!(running.engine.status().watches, 2);
    drop(first);
    drop(second);
    assert_eq!(running.engine.status().watches, 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_state_comes_in_parts_and_many_changes_in_several_events() {
    let running = start();
    let register = |n: usize| {
        let entries = BTreeMap::from([("k".to_owned(), "x".repeat(4_000))]);
        let metadata = Metadata::new(&entries);
        let content = Content::from(&Parts { metadata, ..parts(1) });
        running.engine.register(key("s"), id(&format!("i{n:04}")), content, terms(60_000))
    };
    let mut following = running.watch(&["s"]);
    assert_eq!(told(&mut following).await, (snapshot(&[]), 0));
    assert!(join_all((0..1_000).map(register)).await.iter().all(Result::is_ok));
    let mut parts = 0;
    let mut watch = running.watch(&["s"]);
    loop {
        let (event, cursor) = watch.next().await;
        assert_eq!(cursor.revision, Revision(1_000));
        let WatchEvent::Snapshot { last, .. } = event else { panic!("{event:?}") };
        parts += 1;
        if last {
            break;
        }
    }
    // 4 MB in parts that end once they have more than 64 KiB; a chunk has up to 64 instances.
    assert!((15..=70).contains(&parts), "{parts}");
    let (mut events, mut position) = (0, 0);
    while position < 1_000 {
        let (event, cursor) = following.next().await;
        let WatchEvent::Changes(changes) = event else { panic!("{event:?}") };
        assert!(changes.len() <= 256);
        position += changes.len() as u64;
        assert_eq!(cursor.revision, Revision(position));
        events += 1;
    }
    assert!((60..=80).contains(&events), "4 MB in events of up to 64 KiB: {events}");
}

/// A namespace is captured in the moment in which a service that lost its last instance is no
/// longer listed, while the position that promises this is not published yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_snapshot_taken_while_a_service_empties_is_exact_for_its_position() {
    let running = start();
    running.register("n/s", "a", 60_000).await;
    let shared = Arc::clone(&running.engine.shared);
    // The worker idles: this does by hand what it does, up to the position.
    let service = shared.directory.service(&key("n/s")).unwrap();
    let before = Arc::clone(service.roster.instances().next().unwrap());
    let removed = Arc::new(Instance { modified: Revision(2), ..Instance::clone(&before) });
    let kind = ChangeKind::Removed(RemovalReason::Evicted);
    let change = Arc::new(Change { kind, instance: removed });
    let _evicted = shared.log.write().append(change, Revision(1));
    let key = Arc::clone(&service.key);
    let roster = crate::registry::Roster::default();
    let revision = Revision(2);
    shared.directory.put(Arc::new(crate::registry::Service { key, roster, revision }));
    let subjects = Subjects::Namespace(name("n"));
    let mut watch = running.engine.watch(subjects, Filter::default(), None);
    let (captured, capture) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || captured.send(watch.next().now_or_never()));
        // Whether it waits for the position or goes by the one before, it has to be exact.
        let early = capture.recv_timeout(Duration::from_millis(100)).ok();
        shared.published.store(2, Ordering::Release);
        let told = early.or_else(|| capture.recv().ok()).flatten();
        let Some((WatchEvent::Snapshot { chunks, last: true }, cursor)) = told else {
            panic!("{told:?}");
        };
        let instances: usize = chunks.iter().map(|chunk| chunk.instances().len()).sum();
        assert_eq!(instances, usize::from(cursor.revision < Revision(2)), "at {cursor:?}");
    });
}

// ---------------------------------------------------------------------------------------------
// Followers under concurrent writers

/// Folds what a watch tells, and compares it with what was committed.
struct Follower {
    engine: Engine,
    watch: Watch,
    subjects: Subjects,
    filter: Filter,
    cursor: Revision,
    /// What the reader holds, and the parts of a snapshot that is under way.
    state: BTreeMap<Identity, Instance>,
    parts: Option<BTreeMap<Identity, Instance>>,
    committed: Arc<Mutex<Vec<Change>>>,
    /// All that was committed up to the cursor.
    expected: BTreeMap<Identity, Instance>,
    expected_at: usize,
    snapshots: usize,
    changes: usize,
}

impl Follower {
    fn new(
        running: &Running,
        committed: &Arc<Mutex<Vec<Change>>>,
        subjects: Subjects,
        filter: Filter,
    ) -> Self {
        let engine = running.engine.clone();
        Self {
            watch: engine.watch(subjects.clone(), filter.clone(), None),
            engine,
            subjects,
            filter,
            cursor: Revision(0),
            state: BTreeMap::new(),
            parts: None,
            committed: Arc::clone(committed),
            expected: BTreeMap::new(),
            expected_at: 0,
            snapshots: 0,
            changes: 0,
        }
    }

    async fn hear(&mut self) {
        let (event, cursor) = self.watch.next().await;
        self.apply(event, cursor.revision);
    }

    fn apply(&mut self, event: WatchEvent, cursor: Revision) {
        assert!(cursor >= self.cursor, "from {} back to {cursor}", self.cursor);
        match event {
            WatchEvent::Idle => {}
            WatchEvent::Snapshot { chunks, last } => {
                let mut parts = self.parts.take().unwrap_or_default();
                let instances = chunks.iter().flat_map(|chunk| chunk.instances());
                for instance in instances.filter(|i| self.filter.matches(&i.content)) {
                    let before = parts.insert(identity(instance), Instance::clone(instance));
                    assert_eq!(before, None, "told twice");
                }
                if !last {
                    self.parts = Some(parts);
                    return;
                }
                self.state = parts;
                self.snapshots += 1;
            }
            WatchEvent::Changes(changes) => {
                assert!(!changes.is_empty());
                for change in changes {
                    self.change(&change, cursor);
                }
            }
        }
        assert!(self.parts.is_none(), "a snapshot was not finished");
        self.cursor = cursor;
        self.compare();
    }

    fn change(&mut self, change: &WatchedChange, up_to: Revision) {
        self.changes += 1;
        let (WatchedChange::Whole(entry)
        | WatchedChange::Entered(entry)
        | WatchedChange::Left(entry)) = change;
        let revision = entry.change.revision();
        assert!(revision > self.cursor && revision <= up_to, "{revision} is out of order");
        self.cursor = revision;
        let after = &entry.change.instance;
        match change {
            WatchedChange::Whole(entry) => fold(&mut self.state, &entry.change),
            WatchedChange::Entered(_) => {
                let before = self.state.insert(identity(after), Instance::clone(after));
                assert_eq!(before, None, "it was in already");
            }
            WatchedChange::Left(_) => {
                assert!(self.state.remove(&identity(after)).is_some(), "it was not in");
            }
        }
    }

    fn concerns(&self, key: &ServiceKey) -> bool {
        match &self.subjects {
            Subjects::Namespace(namespace) => key.namespace == *namespace,
            Subjects::Services(keys) => keys.contains(key),
        }
    }

    fn compare(&mut self) {
        let up_to = usize::try_from(self.cursor.0).unwrap();
        {
            let committed = self.committed.lock();
            for change in &committed[self.expected_at..up_to] {
                fold(&mut self.expected, change);
            }
        }
        self.expected_at = up_to;
        let wanted = self.expected.iter().filter(|((key, _), instance)| {
            self.concerns(key) && self.filter.matches(&instance.content)
        });
        assert!(self.state.iter().eq(wanted), "another state at {}", self.cursor);
    }

    /// How many changes up to the cursor concern it.
    fn concerning(&self) -> usize {
        let committed = self.committed.lock();
        let concerning =
            committed[..self.expected_at].iter().filter(|c| self.concerns(&c.instance.service));
        concerning.count()
    }

    /// Starts over where it stands, as after a lost connection.
    fn reconnect(&mut self) {
        let cursor = self.engine.cursor(self.cursor);
        let (subjects, filter) = (self.subjects.clone(), self.filter.clone());
        // A snapshot under way is lost with the connection.
        self.parts = None;
        self.watch = self.engine.watch(subjects, filter, Some(cursor));
    }

    /// Follows until everything has been told, slowly or not.
    async fn run(mut self, mut end: watch::Receiver<Option<Revision>>, mut random: Rng) -> Self {
        let pause_max = if random.bool() { 1 } else { 400 };
        loop {
            tokio::select! {
                (event, cursor) = self.watch.next() => self.apply(event, cursor.revision),
                ended = end.changed() => {
                    ended.expect("the writers say when they are done");
                    break;
                }
            }
            if random.u8(..20) == 0 {
                self.reconnect();
            }
            for _ in 0..random.u32(..pause_max) {
                yield_now().await;
            }
        }
        let last = end.borrow().expect("the end was told");
        while self.cursor < last || self.parts.is_some() {
            // Tells at once where it stands, even if nothing concerns it.
            self.reconnect();
            self.hear().await;
            while self.parts.is_some() {
                self.hear().await;
            }
        }
        self
    }
}

async fn with_seeds_async(count: usize, test: impl AsyncFn(Rng)) {
    for seed in seeds(count) {
        println!("WAYPOST_SEED={seed}");
        test(Rng::with_seed(seed)).await;
    }
}

const SERVICES: [&str; 5] = ["n/a", "n/b", "n/c", "m/a", "m/b"];

/// Some writes of one writer. Refusals are part of the game: others write, too.
async fn write(engine: Engine, mut random: Rng, count: usize) {
    let mut leases = Vec::new();
    for _ in 0..count {
        let service = key(SERVICES[random.usize(..5)]);
        let instance = id(&format!("i{}", random.u8(..6)));
        let by_lease = random.choice(&leases).copied().filter(|_| random.bool());
        let target = by_lease
            .map_or_else(|| Target::Identity(service.clone(), instance.clone()), Target::Lease);
        let patch = match random.u8(..4) {
            0 => zone("z"),
            1 => zone("y"),
            _ => weight(random.u32(..3)),
        };
        let done = match random.u8(..8) {
            0..=2 => {
                // Some live for so short that they expire while the test runs.
                let terms = terms(if random.bool() { 3_600_000 } else { random.u64(1..40) });
                engine.register(service, instance, content(random.u16(1..3)), terms).await
            }
            3..=5 => engine.update(target, patch).await,
            _ => engine.deregister(target).await,
        };
        match done {
            Ok(Outcome::Registered { lease, instance, revision }) => {
                leases.push(lease);
                assert!(revision >= instance.modified);
            }
            Ok(_) | Err(EngineError::Refused(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_followers_are_told_adds_up_to_the_state_at_their_position() {
    with_seeds_async(2, async |mut random| {
        for log_changes_max in [4, 60, 65_536] {
            let followers = follow_writers(&mut random, log_changes_max).await;
            for follower in followers.iter().filter(|_| log_changes_max == 65_536) {
                assert_eq!(follower.snapshots, 1, "nobody fell behind a log that holds everything");
                if follower.filter.is_empty() {
                    assert_eq!(follower.changes, follower.concerning(), "each change once");
                }
            }
        }
    })
    .await;
}

/// Lets followers of all kinds follow writers until these are done.
async fn follow_writers(random: &mut Rng, log_changes_max: usize) -> Vec<Follower> {
    let store = TestStore::default();
    let running = start_with(store.clone(), &small_log(log_changes_max));
    let (ended, end) = watch::channel(None);
    let mut followers = JoinSet::new();
    for _ in 0..3 {
        let namespace = || Subjects::Namespace(name("n"));
        let followed = [
            (namespace(), Filter::default()),
            (namespace(), in_zone("z")),
            (named(&["n/a"]), Filter::default()),
            (named(&["n/a", "m/b", "m/none"]), Filter::default()),
            (named(&["n/b", "m/a"]), in_zone("y")),
        ];
        for (subjects, filter) in followed {
            let mut follower = Follower::new(&running, &store.committed, subjects, filter);
            // All of them begin with the empty registry, however they are scheduled then.
            follower.hear().await;
            followers.spawn(follower.run(end.clone(), Rng::with_seed(random.u64(..))));
        }
    }
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let random = Rng::with_seed(random.u64(..));
        writers.spawn(write(running.engine.clone(), random, 1_000));
    }
    let all = async {
        writers.join_all().await;
        ended.send(Some(running.revision())).expect("followers listen");
        followers.join_all().await
    };
    timeout(Duration::from_secs(60), all).await.expect("it ends")
}

/// Services with one instance that comes and goes: listing, emptying and forgetting all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn snapshots_of_a_namespace_under_fire_are_exact() {
    with_seeds_async(4, async |mut random| {
        let store = TestStore::default();
        let limits = small_log([3, 1_000][random.usize(..2)]);
        let running = start_with(store.clone(), &limits);
        let mut writers = JoinSet::new();
        for writer in 0..3 {
            let engine = running.engine.clone();
            writers.spawn(async move {
                for round in 0..600 {
                    let service = key(&format!("n/{writer}-{}", round % 3));
                    let identity = Target::Identity(service.clone(), id("i"));
                    let done = engine.register(service, id("i"), content(1), terms(60_000)).await;
                    assert!(done.is_ok());
                    assert!(engine.deregister(identity).await.is_ok());
                }
            });
        }
        let mut reading = JoinSet::new();
        for _ in 0..3 {
            let subjects = Subjects::Namespace(name("n"));
            let mut follower =
                Follower::new(&running, &store.committed, subjects, Filter::default());
            reading.spawn(async move {
                while follower.cursor < Revision(3_600) {
                    let subjects = follower.subjects.clone();
                    follower.watch = follower.engine.watch(subjects, Filter::default(), None);
                    follower.hear().await;
                    yield_now().await;
                }
            });
        }
        let all = async {
            writers.join_all().await;
            reading.join_all().await;
        };
        timeout(Duration::from_secs(60), all).await.expect("it ends");
    })
    .await;
}
