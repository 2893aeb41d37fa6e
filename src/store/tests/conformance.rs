//! The conformance suite of stores, run over each of them.

use tempfile::TempDir;

use super::{Workload, limits, seeds, stored};
use crate::{
    registry::{RestoredState, Transition},
    store::{DiskStore, MemoryStore, Store, StoreError, StoredState, backup::read_backup},
};

/// A storage backend that can be reopened.
trait Backend {
    const NAME: &'static str;
    /// Set if the state survives reopening.
    const DURABLE: bool;

    type Store: Store;

    fn new() -> Self;

    fn open(&self) -> (Self::Store, StoredState);
}

struct Memory;

impl Backend for Memory {
    const NAME: &'static str = "memory";
    const DURABLE: bool = false;

    type Store = MemoryStore;

    fn new() -> Self {
        Self
    }

    fn open(&self) -> (MemoryStore, StoredState) {
        MemoryStore::open()
    }
}

struct Disk(TempDir);

impl Backend for Disk {
    const NAME: &'static str = "disk";
    const DURABLE: bool = true;

    type Store = DiskStore;

    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn open(&self) -> (DiskStore, StoredState) {
        DiskStore::open(self.0.path(), &limits()).unwrap()
    }
}

/// Runs each function over each backend.
macro_rules! suite {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $test() { super::$test::<super::Memory>().await; })*
        }
        mod disk {
            $(#[tokio::test] async fn $test() { super::$test::<super::Disk>().await; })*
        }
    };
}

suite! {
    new_store_has_a_name_and_is_empty
    empty_commit_changes_nothing
    committed_state_survives_or_its_history_ends
    backup_has_the_committed_state_or_is_refused
    unread_backup_blocks_nothing
}

async fn new_store_has_a_name_and_is_empty<B: Backend>() {
    let (store, loaded) = B::new().open();
    assert_eq!(store.name(), B::NAME);
    let RestoredState { revision, leases, changes } = loaded.restored;
    assert_eq!((revision.0, leases.len(), changes.len()), (0, 0, 0));
    assert_ne!(B::new().open().1.history, loaded.history);
}

async fn empty_commit_changes_nothing<B: Backend>() {
    let backend = B::new();
    let (mut store, loaded) = backend.open();
    let mut work = Workload::start(loaded, 1);
    for _ in 0..5 {
        store.commit(&[]).await.unwrap();
        work.turn(&mut store).await.unwrap();
        store.commit(&[]).await.unwrap();
    }
    drop(store);
    compare::<B>(&work, &backend.open().1);
}

async fn committed_state_survives_or_its_history_ends<B: Backend>() {
    for seed in seeds(3) {
        println!("WAYPOST_SEED={seed}");
        let backend = B::new();
        let (mut store, loaded) = backend.open();
        let mut work = Workload::start(loaded, seed);
        for _ in 0..40 {
            work.turn(&mut store).await.unwrap();
        }
        assert!(work.registry.revision().0 > 20, "too few commits");
        drop(store);
        let (mut store, loaded) = backend.open();
        compare::<B>(&work, &loaded);
        // The reopened store continues.
        let mut work = if B::DURABLE { work } else { Workload::start(loaded, seed) };
        for _ in 0..10 {
            work.turn(&mut store).await.unwrap();
        }
        drop(store);
        compare::<B>(&work, &backend.open().1);
    }
}

async fn backup_has_the_committed_state_or_is_refused<B: Backend>() {
    let (mut store, loaded) = B::new().open();
    let mut work = Workload::start(loaded, 1);
    for _ in 0..20 {
        work.turn(&mut store).await.unwrap();
        match store.backup() {
            Ok(backup) => {
                assert!(B::DURABLE);
                let bytes: Vec<u8> = backup.flat_map(Result::unwrap).collect();
                let restored = read_backup(bytes.as_slice()).unwrap();
                assert_eq!(restored.revision, work.registry.revision());
                let loaded = StoredState { history: work.history, restored };
                assert_eq!(stored(&loaded), (work.state.clone(), work.leases.clone()));
            }
            Err(error) => {
                assert!(!B::DURABLE);
                assert_eq!(error, StoreError::NothingToBackUp(B::NAME));
            }
        }
    }
}

async fn unread_backup_blocks_nothing<B: Backend>() {
    let backend = B::new();
    let (mut store, loaded) = backend.open();
    let mut work = Workload::start(loaded, 1);
    let mut backups = Vec::new();
    for _ in 0..20 {
        backups.push(store.backup());
        work.turn(&mut store).await.unwrap();
    }
    drop(backups);
    work.turn(&mut store).await.unwrap();
    drop(store);
    compare::<B>(&work, &backend.open().1);
}

/// Compares a reopened store with the state that its backend must have.
fn compare<B: Backend>(work: &Workload, loaded: &StoredState) {
    if B::DURABLE {
        work.compare(loaded);
    } else {
        assert_ne!(loaded.history, work.history);
        assert_eq!((loaded.restored.revision.0, loaded.restored.leases.len()), (0, 0));
    }
}

/// The engine sends a store and its transitions to a thread of its own.
#[test]
fn stores_and_transitions_are_send() {
    fn sendable<T: Send + 'static>() {}
    sendable::<MemoryStore>();
    sendable::<DiskStore>();
    sendable::<Vec<Transition>>();
}
