//! What every store has to do, over each of them.

use tempfile::TempDir;

use super::{Work, kept, limits, seeds};
use crate::{
    registry::{Restored, Transition},
    store::{DiskStore, MemoryStore, Store, StoreError, StoredState, backup::read_backup},
};

/// A store that can be opened again and again.
trait Place {
    const NAME: &'static str;
    /// Whether it keeps anything.
    const KEEPS: bool;

    type Store: Store;

    fn new() -> Self;

    fn open(&self) -> (Self::Store, StoredState);
}

struct Memory;

impl Place for Memory {
    const NAME: &'static str = "memory";
    const KEEPS: bool = false;

    type Store = MemoryStore;

    fn new() -> Self {
        Self
    }

    fn open(&self) -> (MemoryStore, StoredState) {
        MemoryStore::open()
    }
}

struct Disk(TempDir);

impl Place for Disk {
    const NAME: &'static str = "disk";
    const KEEPS: bool = true;

    type Store = DiskStore;

    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn open(&self) -> (DiskStore, StoredState) {
        DiskStore::open(self.0.path(), &limits()).unwrap()
    }
}

/// Runs each of the functions over each of the stores.
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
    a_new_one_has_a_name_and_nothing_in_it
    a_commit_of_nothing_changes_nothing
    what_was_committed_is_kept_or_gone_with_its_history
    an_image_holds_what_was_committed_or_is_refused
    an_image_that_nobody_reads_is_in_nobodys_way
}

async fn a_new_one_has_a_name_and_nothing_in_it<P: Place>() {
    let (store, loaded) = P::new().open();
    assert_eq!(store.name(), P::NAME);
    let Restored { revision, stays, changes } = loaded.restored;
    assert_eq!((revision.0, stays.len(), changes.len()), (0, 0, 0));
    assert_ne!(P::new().open().1.history, loaded.history);
}

async fn a_commit_of_nothing_changes_nothing<P: Place>() {
    let place = P::new();
    let (mut store, loaded) = place.open();
    let mut work = Work::begin(loaded, 1);
    for _ in 0..5 {
        store.commit(&[]).await.unwrap();
        work.turn(&mut store).await.unwrap();
        store.commit(&[]).await.unwrap();
    }
    drop(store);
    compare::<P>(&work, &place.open().1);
}

async fn what_was_committed_is_kept_or_gone_with_its_history<P: Place>() {
    for seed in seeds(3) {
        println!("WAYPOST_SEED={seed}");
        let place = P::new();
        let (mut store, loaded) = place.open();
        let mut work = Work::begin(loaded, seed);
        for _ in 0..40 {
            work.turn(&mut store).await.unwrap();
        }
        assert!(work.registry.revision().0 > 20, "hardly anything was committed");
        drop(store);
        let (mut store, loaded) = place.open();
        compare::<P>(&work, &loaded);
        // And it goes on from there.
        let mut work = if P::KEEPS { work } else { Work::begin(loaded, seed) };
        for _ in 0..10 {
            work.turn(&mut store).await.unwrap();
        }
        drop(store);
        compare::<P>(&work, &place.open().1);
    }
}

async fn an_image_holds_what_was_committed_or_is_refused<P: Place>() {
    let (mut store, loaded) = P::new().open();
    let mut work = Work::begin(loaded, 1);
    for _ in 0..20 {
        work.turn(&mut store).await.unwrap();
        match store.backup() {
            Ok(image) => {
                assert!(P::KEEPS);
                let bytes: Vec<u8> = image.flat_map(Result::unwrap).collect();
                let restored = read_backup(bytes.as_slice()).unwrap();
                assert_eq!(restored.revision, work.registry.revision());
                let loaded = StoredState { history: work.history, restored };
                assert_eq!(kept(&loaded), (work.state.clone(), work.leases.clone()));
            }
            Err(error) => {
                assert!(!P::KEEPS);
                assert_eq!(error, StoreError::NothingToBackUp(P::NAME));
            }
        }
    }
}

async fn an_image_that_nobody_reads_is_in_nobodys_way<P: Place>() {
    let place = P::new();
    let (mut store, loaded) = place.open();
    let mut work = Work::begin(loaded, 1);
    let mut images = Vec::new();
    for _ in 0..20 {
        images.push(store.backup());
        work.turn(&mut store).await.unwrap();
    }
    drop(images);
    work.turn(&mut store).await.unwrap();
    drop(store);
    compare::<P>(&work, &place.open().1);
}

/// Compares what was found with what a store of this kind ought to keep of the work.
fn compare<P: Place>(work: &Work, loaded: &StoredState) {
    if P::KEEPS {
        work.compare(loaded);
    } else {
        assert_ne!(loaded.history, work.history);
        assert_eq!((loaded.restored.revision.0, loaded.restored.stays.len()), (0, 0));
    }
}

/// The engine sends stores and what they commit to a thread of its own.
#[test]
fn what_an_engine_hands_to_its_thread_can_go_there() {
    fn sendable<T: Send + 'static>() {}
    sendable::<MemoryStore>();
    sendable::<DiskStore>();
    sendable::<Vec<Transition>>();
}
