//! Tests of the stores under a registry's workload: crashes, damaged files, a failing disk.

mod backups;
mod conformance;
mod log;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use tempfile::TempDir;
use waypost_core::testing::{Identity, fold, id, identity, key, name, parts, seeds, zone};

use super::{DiskStore, Store, StoreError, StoredState, disk::tests::FaultyDisk};
use crate::{
    model::{
        Change, ChangeKind, Content, HistoryId, Instance, LeaseId, LeaseTerms, Limits, Metadata,
        Name, Status, Tick, WallTime,
    },
    registry::{Command, LeaseSeed, Now, Patch, Registry, RestoredLease, Target, Transition},
};

const CHANGES_MAX: usize = 64;

fn limits() -> Limits {
    Limits { log_changes_max: CHANGES_MAX, ..Limits::default() }
}

/// A registry that commits to a store, and the state that the store must have.
struct Workload {
    registry: Registry,
    history: HistoryId,
    now: u64,
    random: Rng,
    /// The registered instances.
    state: BTreeMap<Identity, Instance>,
    leases: BTreeMap<Identity, (LeaseId, LeaseTerms)>,
    /// Every change.
    changes: Vec<Arc<Change>>,
    /// The number of changes before each batch.
    batch_starts: Vec<usize>,
    /// The batch that the store last rejected.
    refused: Option<Vec<Transition>>,
}

impl Workload {
    fn start(loaded: StoredState, seed: u64) -> Self {
        let history = loaded.history;
        let (registry, _) =
            Registry::restore(0, LeaseSeed::repeatable(seed), &limits(), loaded.restored, Tick(0));
        Self {
            registry,
            history,
            now: 0,
            random: Rng::with_seed(seed),
            state: BTreeMap::new(),
            leases: BTreeMap::new(),
            changes: Vec::new(),
            batch_starts: Vec::new(),
            refused: None,
        }
    }

    fn some_command(&mut self) -> Command {
        let random = &mut self.random;
        let service = key(["a/one", "a/two", "b/one"][random.usize(..3)]);
        let instance = id(&format!("i{:02}", random.u8(..20)));
        let target = Target::Identity(service.clone(), instance.clone());
        match random.u8(..8) {
            0..=3 => {
                let mut parts = parts(random.u16(1..3));
                parts.ports = [(name("metrics"), parts.port)].into();
                parts.zone = random.bool().then(|| Name::parse("eu-1", 128).unwrap());
                let entries = BTreeMap::from([("k".to_owned(), random.u8(..9).to_string())]);
                parts.metadata = Metadata::new(&entries);
                let terms = LeaseTerms {
                    ttl: Duration::from_nanos(random.u64(1_000_000_000..5_000_000_000)),
                    disconnect_grace: Duration::from_millis(random.u64(..1_000)),
                };
                let content = Content::from(&parts);
                Command::Register { service, id: instance, content, terms, instances_max: None }
            }
            4 => Command::Update { target, patch: zone("z") },
            5 => {
                let patch = Patch { status: Some(Status::Draining), ..Patch::default() };
                Command::Update { target, patch }
            }
            _ => Command::Deregister { target },
        }
    }

    /// Runs a random batch, as the engine does.
    async fn turn(&mut self, store: &mut impl Store) -> Result<(), StoreError> {
        self.now += self.random.u64(..300);
        let commands = (0..self.random.usize(..12)).map(|_| self.some_command()).collect();
        self.turn_with(store, commands).await
    }

    /// Runs a batch of expiries and the given commands.
    async fn turn_with(
        &mut self,
        store: &mut impl Store,
        requested: Vec<Command>,
    ) -> Result<(), StoreError> {
        let (due_leases, _) = self.registry.take_due(Tick(self.now), 1_000);
        let enforced = due_leases.iter().copied().map(Command::Enforce);
        let commands: Vec<_> = enforced.chain(requested).collect();
        let now = Now { tick: Tick(self.now), wall: WallTime(self.now) };
        let mut plan = self.registry.plan(now);
        for command in commands {
            let _refused = plan.decide(command);
        }
        let transitions = plan.into_transitions();
        if let Err(error) = store.commit(&transitions).await {
            self.registry.reinstate(&due_leases, Tick(self.now));
            self.refused = Some(transitions);
            return Err(error);
        }
        self.absorb(transitions);
        Ok(())
    }

    fn absorb(&mut self, transitions: Vec<Transition>) {
        self.batch_starts.push(self.changes.len());
        for transition in transitions {
            if let Transition::Added { instance, lease, terms }
            | Transition::TakenOver { instance, lease, terms, .. } = &transition
            {
                self.leases.insert(identity(instance), (*lease, *terms));
            }
            let Some(absorbed) = self.registry.absorb(transition, Tick(self.now)) else {
                continue;
            };
            let change = absorbed.change;
            fold(&mut self.state, &change);
            if matches!(change.kind, ChangeKind::Removed(_)) {
                self.leases.remove(&identity(&change.instance));
            }
            self.changes.push(change);
        }
    }

    /// Compares a reopened store with the expected state, and continues from it.
    fn restart(&mut self, loaded: StoredState, seed: u64) {
        self.compare(&loaded);
        let (registry, log) =
            Registry::restore(0, LeaseSeed::repeatable(seed), &limits(), loaded.restored, Tick(0));
        assert_eq!(registry.instances(), self.registry.instances());
        // Memory has at most as many as the limits allow.
        let kept = self.changes.len().min(CHANGES_MAX) as u64;
        assert_eq!(log.floor().0, self.registry.revision().0 - kept);
        let table = registry.lease_table();
        for (lease, _) in self.leases.values() {
            assert!(table.renew(*lease, Tick(1)), "{lease} is active");
        }
        self.registry = registry;
        self.now = 1;
    }

    /// Compares a store with the expected state.
    fn compare(&self, loaded: &StoredState) {
        assert_eq!(loaded.history, self.history);
        assert_eq!(loaded.restored.revision, self.registry.revision());
        let (state, leases) = stored(loaded);
        assert_eq!(state, self.state);
        assert_eq!(leases, self.leases);
        let kept = &loaded.restored.changes;
        assert!(self.may_keep(kept.len(), self.changes.len().min(CHANGES_MAX)));
        assert_eq!(*kept, self.latest(kept.len()));
    }

    /// Returns the latest `count` changes.
    fn latest(&self, count: usize) -> &[Arc<Change>] {
        &self.changes[self.changes.len() - count..]
    }

    /// Returns whether a store that must keep the latest `needed` changes may keep `kept`: older
    /// ones share a batch with one of them.
    fn may_keep(&self, kept: usize, needed: usize) -> bool {
        let oldest = self.changes.len() - needed;
        let index = self.batch_starts.partition_point(|start| *start <= oldest);
        let batch = index.checked_sub(1).map_or(0, |latest| self.batch_starts[latest]);
        (batch..=oldest).contains(&(self.changes.len() - kept))
    }

    fn agrees(&self, loaded: &StoredState) -> bool {
        loaded.restored.revision == self.registry.revision() && stored(loaded).1 == self.leases
    }
}

type StoredInstances = (BTreeMap<Identity, Instance>, BTreeMap<Identity, (LeaseId, LeaseTerms)>);

/// Returns the instances and leases of a store.
fn stored(loaded: &StoredState) -> StoredInstances {
    let leases = loaded.restored.leases.iter();
    let instance =
        |lease: &RestoredLease| (identity(&lease.instance), Instance::clone(&lease.instance));
    let lease = |lease: &RestoredLease| (identity(&lease.instance), (lease.lease, lease.terms));
    (leases.clone().map(instance).collect(), leases.map(lease).collect())
}

#[tokio::test]
async fn reopened_directory_has_everything_that_was_committed() {
    for seed in seeds(4) {
        println!("WAYPOST_SEED={seed}");
        let directory = TempDir::new().unwrap();
        let limits = limits();
        let open = || DiskStore::open(directory.path(), &limits).unwrap();
        let (mut store, loaded) = open();
        let mut work = Workload::start(loaded, seed);
        for round in 0..10 {
            for _ in 0..work.random.usize(..40) {
                work.turn(&mut store).await.unwrap();
            }
            drop(store);
            let loaded;
            (store, loaded) = open();
            work.restart(loaded, seed.wrapping_add(round));
        }
        assert!(work.changes.len() > 2 * CHANGES_MAX, "too few changes");
    }
}

/// Damages a file at random. Returns a description.
fn damage(bytes: &mut Vec<u8>, random: &mut Rng) -> String {
    let at = random.usize(..bytes.len());
    match random.u8(..4) {
        0 => {
            bytes[at] ^= 1 << random.u8(..8);
            format!("a bit flips at {at}")
        }
        1 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        2 => {
            let page = at / 4096 * 4096;
            let end = bytes.len().min(page + 4096);
            bytes[page..end].fill(0);
            format!("nothing in the page at {page}")
        }
        _ => {
            let end = bytes.len().min(at + random.usize(1..600));
            bytes[at..end].iter_mut().for_each(|byte| *byte = random.u8(..));
            format!("noise from {at} to {end}")
        }
    }
}

#[tokio::test]
async fn damaged_file_is_rejected_or_complete() {
    let limits = limits();
    let directory = TempDir::new().unwrap();
    let open = || DiskStore::open(directory.path(), &limits);
    let (mut store, loaded) = open().unwrap();
    let mut work = Workload::start(loaded, 1);
    for _ in 0..60 {
        work.turn(&mut store).await.unwrap();
    }
    drop(store);
    let file = directory.path().join("registry.redb");
    let whole = std::fs::read(&file).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for seed in seeds(100) {
        let mut bytes = whole.clone();
        let what = damage(&mut bytes, &mut Rng::with_seed(seed));
        std::fs::write(&file, &bytes).unwrap();
        println!("WAYPOST_SEED={seed}: {what}");
        match open() {
            Ok((_, loaded)) => {
                work.compare(&loaded);
                harmless += 1;
            }
            Err(StoreError::Unusable { path, reason }) => {
                assert_eq!(path, file, "{reason}");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    println!("{refused} refused, {harmless} harmless");
}

/// Runs batches until the disk fails at the given step.
async fn work_until(disk: &FaultyDisk, step: usize, seed: u64) -> Workload {
    let limits = limits();
    let (mut store, loaded) = disk.open(&limits).unwrap();
    let mut work = Workload::start(loaded, seed);
    disk.fail_after(Some(step));
    while work.turn(&mut store).await.is_ok() {}
    work
}

#[tokio::test]
async fn no_crash_loses_an_answered_write() {
    let limits = limits();
    let (mut with, mut without) = (0, 0);
    for seed in seeds(500) {
        println!("WAYPOST_SEED={seed}");
        let mut random = Rng::with_seed(seed);
        let disk = FaultyDisk::default();
        let mut work = work_until(&disk, random.usize(..400), seed).await;
        let (_, loaded) = disk.crash(&mut random).open(&limits).unwrap();
        // The batch in progress was not answered: all of it is stored, or nothing.
        if work.agrees(&loaded) {
            without += 1;
        } else {
            let transitions = work.refused.take().expect("a batch was in progress");
            work.absorb(transitions);
            work.compare(&loaded);
            with += 1;
        }
    }
    println!("{without} crashes without the last batch, {with} with it");
}

#[tokio::test]
async fn write_that_the_disk_rejected_never_appears() {
    let limits = limits();
    for seed in seeds(20) {
        println!("WAYPOST_SEED={seed}");
        let mut random = Rng::with_seed(seed);
        let mut disk = FaultyDisk::default();
        let (mut store, loaded) = disk.open(&limits).unwrap();
        let mut work = Workload::start(loaded, seed);
        let mut failures = 0;
        for _ in 0..200 {
            if random.u8(..4) == 0 {
                disk.fail_after(Some(random.usize(..60)));
            }
            if work.turn(&mut store).await.is_err() {
                failures += 1;
                disk.fail_after(None);
            } else if random.u8(..20) == 0 {
                disk = disk.crash(&mut random);
                drop(store);
                let loaded;
                (store, loaded) = disk.open(&limits).unwrap();
                work.restart(loaded, random.u64(..));
            }
        }
        assert!(failures > 10, "too few failures");
    }
}
