//! Tests of the engine in paused time, over stores that fail on demand, with watches that are
//! compared with everything that was committed.

mod exactness;
mod follower;
mod leases;
mod resumption;
mod watches;
mod writes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::{task::yield_now, time::sleep};
use waypost_core::testing::{content, id, key, name, seeds, terms};
use waypost_serving::tasks::Tasks;

use crate::{
    auth::{
        Caller, DiscoverService, ListNamespace, Permit, ReadStatus, RegisterService, WatchScope,
        WatchTarget,
    },
    clock::Clock,
    engine::{Engine, EngineError, Watch, WatchEvent, WatchedChange},
    model::{
        Change, ChangeKind, Cursor, Filter, LeaseId, Limits, RemovalReason, Revision, ServiceKey,
    },
    registry::{LeaseSeed, Outcome, Patch, Target, Transition},
    store::{Backup, MemoryStore, Store, StoreError},
};

/// A store that records commits, and fails on demand.
#[derive(Debug, Clone, Default)]
struct TestStore {
    fails: Arc<AtomicBool>,
    /// The duration of a commit.
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

/// An engine, and the tasks that must outlive the test.
struct TestEngine {
    engine: Engine,
    clock: Clock,
    tasks: Tasks,
}

fn start_with(store: impl Store, limits: &Limits) -> TestEngine {
    let (clock, tasks) = (Clock::start(), Tasks::default());
    let (_, nothing) = MemoryStore::open();
    let engine =
        Engine::start(store, nothing, LeaseSeed::repeatable(1), limits, clock, &tasks).unwrap();
    TestEngine { engine, clock, tasks }
}

fn start() -> TestEngine {
    start_with(MemoryStore, &Limits::default())
}

fn small_log(log_changes_max: usize) -> Limits {
    Limits { log_changes_max, ..Limits::default() }
}

impl TestEngine {
    async fn register(&self, service: &str, instance: &str, ttl_ms: u64) -> (LeaseId, Revision) {
        let content = content(1);
        let done = self
            .engine
            .register(may_register(key(service)), id(instance), content, terms(ttl_ms))
            .await;
        match done {
            Ok(Outcome::Registered { lease, revision, .. }) => (lease, revision),
            other => panic!("not registered: {other:?}"),
        }
    }

    async fn update(&self, service: &str, instance: &str, patch: Patch) -> Revision {
        match self.engine.update_target(of(service, instance), patch).await {
            Ok(Outcome::Updated { revision, .. }) => revision,
            other => panic!("not updated: {other:?}"),
        }
    }

    async fn deregister(&self, service: &str, instance: &str) -> Revision {
        match self.engine.deregister_target(of(service, instance)).await {
            Ok(Outcome::Deregistered { revision, .. }) => revision,
            other => panic!("not deregistered: {other:?}"),
        }
    }

    fn ids(&self, service: &str) -> Vec<String> {
        let (found, _) = self.engine.service(&may_discover(service));
        let roster = found.map(|service| service.roster.clone()).unwrap_or_default();
        roster.instances().map(|instance| instance.id.to_string()).collect()
    }

    fn revision(&self) -> Revision {
        self.engine.status(&may_read_status()).cursor.revision
    }

    fn cursor(&self, revision: u64) -> Option<Cursor> {
        Some(self.engine.cursor(Revision(revision)))
    }

    fn watch(&self, services: &[&str]) -> Watch {
        self.engine.watch(may_watch(named(services)), Filter::default(), None)
    }

    fn resume(&self, services: &[&str], cursor: Option<Cursor>) -> Watch {
        self.engine.watch(may_watch(named(services)), Filter::default(), cursor)
    }
}

impl Engine {
    async fn update_target(&self, target: Target, patch: Patch) -> Result<Outcome, EngineError> {
        let caller = Caller::unrestricted();
        match target {
            Target::Lease(lease) => self.update_leased(&caller, lease, patch).await,
            Target::Identity(service, id) => {
                self.update(caller.operate(service, &id).unwrap(), id, patch).await
            }
        }
    }

    async fn deregister_target(&self, target: Target) -> Result<Outcome, EngineError> {
        let caller = Caller::unrestricted();
        match target {
            Target::Lease(lease) => self.deregister_leased(&caller, lease).await,
            Target::Identity(service, id) => {
                self.deregister(caller.operate(service, &id).unwrap(), id).await
            }
        }
    }
}

fn may_register(service: ServiceKey) -> Permit<RegisterService> {
    let id = crate::model::InstanceId::parse("any", 256).unwrap();
    Caller::unrestricted().register(service, &id, &content(1).host()).unwrap()
}

fn may_discover(service: &str) -> Permit<DiscoverService> {
    Caller::unrestricted().discover(key(service)).unwrap()
}

fn may_list(namespace: &str) -> Permit<ListNamespace> {
    Caller::unrestricted().list(name(namespace)).unwrap()
}

fn may_watch(subjects: WatchTarget) -> Permit<WatchScope> {
    Caller::unrestricted().watch(subjects).unwrap()
}

fn may_read_status() -> Permit<ReadStatus> {
    Caller::unrestricted().read_status().unwrap()
}

fn of(service: &str, instance: &str) -> Target {
    Target::Identity(key(service), id(instance))
}

fn named(services: &[&str]) -> WatchTarget {
    WatchTarget::Services(services.iter().map(|service| Arc::new(key(service))).collect())
}

fn in_zone(zone: &str) -> Filter {
    Filter { zones: vec![zone.to_owned()], ..Filter::default() }
}

/// An event in the short form that tests compare.
#[derive(Debug, PartialEq, Eq)]
enum SeenEvent {
    Snapshot(Vec<String>),
    Changes(Vec<(&'static str, String)>),
    Idle,
}

fn snapshot(ids: &[&str]) -> SeenEvent {
    SeenEvent::Snapshot(ids.iter().map(|id| (*id).to_owned()).collect())
}

fn changes<const N: usize>(changes: [(&'static str, &str); N]) -> SeenEvent {
    SeenEvent::Changes(changes.map(|(kind, id)| (kind, id.to_owned())).into())
}

/// Returns the next event and the revision after it. All snapshots here fit into one event.
async fn next_event(watch: &mut Watch) -> (SeenEvent, u64) {
    let (event, cursor) = watch.next().await;
    let seen = match event {
        WatchEvent::Idle => SeenEvent::Idle,
        WatchEvent::Snapshot { chunks, last } => {
            assert!(last);
            let instances = chunks.iter().flat_map(|chunk| chunk.instances());
            let matching = instances.filter(|i| watch.filter().matches(&i.content));
            SeenEvent::Snapshot(matching.map(|instance| instance.id.to_string()).collect())
        }
        WatchEvent::Changes(changes) => SeenEvent::Changes(changes.iter().map(in_short).collect()),
    };
    (seen, cursor.revision.0)
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

async fn with_seeds_async(count: usize, test: impl AsyncFn(Rng)) {
    for seed in seeds(count) {
        println!("WAYPOST_SEED={seed}");
        test(Rng::with_seed(seed)).await;
    }
}
