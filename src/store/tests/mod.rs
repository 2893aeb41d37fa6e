//! A registry at work upon a store, and what a store that keeps things has to stand: crashes, damage,
//! a disc that fails.

mod backups;
mod conformance;
mod log;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use tempfile::TempDir;
use waypost_core::testing::{Identity, fold, id, identity, key, name, parts, seeds, zone};

use super::{DiskStore, Store, StoreError, StoredState, disk::tests::Disc};
use crate::{
    model::{
        Change, ChangeKind, Content, HistoryId, Instance, LeaseId, LeaseTerms, Limits, Metadata,
        Name, Status, Tick, WallTime,
    },
    registry::{Command, Now, Patch, Registry, Stay, Target, Transition},
};

const CHANGES_MAX: usize = 64;

fn limits() -> Limits {
    Limits { log_changes_max: CHANGES_MAX, ..Limits::default() }
}

/// A registry at work upon a store, and what it ought to keep.
struct Work {
    registry: Registry,
    history: HistoryId,
    now: u64,
    random: Rng,
    /// Who is there.
    state: BTreeMap<Identity, Instance>,
    leases: BTreeMap<Identity, (LeaseId, LeaseTerms)>,
    /// Every change.
    changes: Vec<Arc<Change>>,
    /// How many there were before each of the batches.
    begun: Vec<usize>,
    /// The batch that was refused last.
    refused: Option<Vec<Transition>>,
}

impl Work {
    fn begin(loaded: StoredState, seed: u64) -> Self {
        let history = loaded.history;
        let (registry, _) = Registry::restore(0, seed, &limits(), loaded.restored, Tick(0));
        Self {
            registry,
            history,
            now: 0,
            random: Rng::with_seed(seed),
            state: BTreeMap::new(),
            leases: BTreeMap::new(),
            changes: Vec::new(),
            begun: Vec::new(),
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
                Command::Register { service, id: instance, content: Content::from(&parts), terms }
            }
            4 => Command::Update { target, patch: zone("z") },
            5 => {
                let patch = Patch { status: Some(Status::Draining), ..Patch::default() };
                Command::Update { target, patch }
            }
            _ => Command::Deregister { target },
        }
    }

    /// A turn like the engine's.
    async fn turn(&mut self, store: &mut impl Store) -> Result<(), StoreError> {
        self.now += self.random.u64(..300);
        let commands = (0..self.random.usize(..12)).map(|_| self.some_command()).collect();
        self.turn_with(store, commands).await
    }

    /// One in which somebody asks for this.
    async fn turn_with(
        &mut self,
        store: &mut impl Store,
        asked: Vec<Command>,
    ) -> Result<(), StoreError> {
        let (verdicts, _) = self.registry.judge(Tick(self.now), 1_000);
        let enforced = verdicts.iter().copied().map(Command::Enforce);
        let commands: Vec<_> = enforced.chain(asked).collect();
        let now = Now { tick: Tick(self.now), wall: WallTime(self.now) };
        let mut plan = self.registry.plan(now);
        for command in commands {
            let _refused = plan.decide(command);
        }
        let transitions = plan.into_transitions();
        if let Err(error) = store.commit(&transitions).await {
            self.registry.reinstate(&verdicts, Tick(self.now));
            self.refused = Some(transitions);
            return Err(error);
        }
        self.absorb(transitions);
        Ok(())
    }

    fn absorb(&mut self, transitions: Vec<Transition>) {
        self.begun.push(self.changes.len());
        for transition in transitions {
            if let Transition::Added { instance, lease, terms }
            | Transition::TakenOver { instance, lease, terms, .. } = &transition
            {
                self.leases.insert(identity(instance), (*lease, *terms));
            }
            let Some(change) = self.registry.absorb(transition, Tick(self.now)).change else {
                continue;
            };
            fold(&mut self.state, &change);
            if matches!(change.kind, ChangeKind::Removed(_)) {
                self.leases.remove(&identity(&change.instance));
            }
            self.changes.push(change);
        }
    }

    /// Compares what a store kept with what it ought to have, and goes on with that.
    fn restart(&mut self, loaded: StoredState, seed: u64) {
        self.compare(&loaded);
        let (registry, log) = Registry::restore(0, seed, &limits(), loaded.restored, Tick(0));
        assert_eq!(registry.instances(), self.registry.instances());
        // In memory there are no more than the limits say.
        let kept = self.changes.len().min(CHANGES_MAX) as u64;
        assert_eq!(log.floor().0, self.registry.revision().0 - kept);
        let table = registry.lease_table();
        for (lease, _) in self.leases.values() {
            assert!(table.renew(*lease, Tick(1)), "{lease} lives on");
        }
        self.registry = registry;
        self.now = 1;
    }

    /// Compares what a store kept with what it ought to.
    fn compare(&self, loaded: &StoredState) {
        assert_eq!(loaded.history, self.history);
        assert_eq!(loaded.restored.revision, self.registry.revision());
        let (state, leases) = kept(loaded);
        assert_eq!(state, self.state);
        assert_eq!(leases, self.leases);
        let kept = &loaded.restored.changes;
        assert!(self.may_keep(kept.len(), self.changes.len().min(CHANGES_MAX)));
        assert_eq!(*kept, self.latest(kept.len()));
    }

    /// The latest changes, so many.
    fn latest(&self, count: usize) -> &[Arc<Change>] {
        &self.changes[self.changes.len() - count..]
    }

    /// Whether so many of the latest changes may be kept where fewer need not be: those before them
    /// share a batch with one of them.
    fn may_keep(&self, kept: usize, needed: usize) -> bool {
        let oldest = self.changes.len() - needed;
        let begun = self.begun.partition_point(|begun| *begun <= oldest);
        let batch = begun.checked_sub(1).map_or(0, |latest| self.begun[latest]);
        (batch..=oldest).contains(&(self.changes.len() - kept))
    }

    fn agrees(&self, loaded: &StoredState) -> bool {
        loaded.restored.revision == self.registry.revision() && kept(loaded).1 == self.leases
    }
}

type StoreSummary = (BTreeMap<Identity, Instance>, BTreeMap<Identity, (LeaseId, LeaseTerms)>);

/// The instances and the leases that a store kept.
fn kept(loaded: &StoredState) -> StoreSummary {
    let stays = loaded.restored.stays.iter();
    let instance = |stay: &Stay| (identity(&stay.instance), Instance::clone(&stay.instance));
    let lease = |stay: &Stay| (identity(&stay.instance), (stay.lease, stay.terms));
    (stays.clone().map(instance).collect(), stays.map(lease).collect())
}

#[tokio::test]
async fn a_directory_gives_back_everything_that_was_committed() {
    for seed in seeds(4) {
        println!("WAYPOST_SEED={seed}");
        let directory = TempDir::new().unwrap();
        let limits = limits();
        let open = || DiskStore::open(directory.path(), &limits).unwrap();
        let (mut store, loaded) = open();
        let mut work = Work::begin(loaded, seed);
        for round in 0..10 {
            for _ in 0..work.random.usize(..40) {
                work.turn(&mut store).await.unwrap();
            }
            drop(store);
            let loaded;
            (store, loaded) = open();
            work.restart(loaded, seed.wrapping_add(round));
        }
        assert!(work.changes.len() > 2 * CHANGES_MAX, "hardly anything was kept");
    }
}

/// What damage does to a file.
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
async fn a_damaged_file_is_refused_or_gives_back_everything() {
    let limits = limits();
    let directory = TempDir::new().unwrap();
    let open = || DiskStore::open(directory.path(), &limits);
    let (mut store, loaded) = open().unwrap();
    let mut work = Work::begin(loaded, 1);
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

/// Works until the disc fails at the given step.
async fn work_until(disc: &Disc, step: usize, seed: u64) -> Work {
    let limits = limits();
    let (mut store, loaded) = disc.open(&limits).unwrap();
    let mut work = Work::begin(loaded, seed);
    disc.fail_after(Some(step));
    while work.turn(&mut store).await.is_ok() {}
    work
}

#[tokio::test]
async fn no_crash_loses_what_was_answered() {
    let limits = limits();
    let (mut with, mut without) = (0, 0);
    for seed in seeds(500) {
        println!("WAYPOST_SEED={seed}");
        let mut random = Rng::with_seed(seed);
        let disc = Disc::default();
        let mut work = work_until(&disc, random.usize(..400), seed).await;
        let (_, loaded) = disc.crash(&mut random).open(&limits).unwrap();
        // The batch that was under way was not answered: it is there as a whole, or not at all.
        if work.agrees(&loaded) {
            without += 1;
        } else {
            let transitions = work.refused.take().expect("a batch was under way");
            work.absorb(transitions);
            work.compare(&loaded);
            with += 1;
        }
    }
    println!("{without} crashes without the last batch, {with} with it");
}

#[tokio::test]
async fn a_write_that_the_disc_refused_never_shows_up() {
    let limits = limits();
    for seed in seeds(20) {
        println!("WAYPOST_SEED={seed}");
        let mut random = Rng::with_seed(seed);
        let mut disc = Disc::default();
        let (mut store, loaded) = disc.open(&limits).unwrap();
        let mut work = Work::begin(loaded, seed);
        let mut failures = 0;
        for _ in 0..200 {
            if random.u8(..4) == 0 {
                disc.fail_after(Some(random.usize(..60)));
            }
            if work.turn(&mut store).await.is_err() {
                failures += 1;
                disc.fail_after(None);
            } else if random.u8(..20) == 0 {
                disc = disc.crash(&mut random);
                drop(store);
                let loaded;
                (store, loaded) = disc.open(&limits).unwrap();
                work.restart(loaded, random.u64(..));
            }
        }
        assert!(failures > 10, "the disc hardly failed");
    }
}
