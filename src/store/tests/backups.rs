//! Tests of backups: their content, and that only complete ones are read.

use std::{collections::BTreeMap, io, time::Duration};

use fastrand::Rng;
use tempfile::TempDir;
use waypost_core::testing::{id, key, parts};

use super::{Workload, damage, limits, seeds, stored};
use crate::{
    model::{Content, LeaseTerms, Metadata, Parts},
    registry::Command,
    store::{
        Backup, BackupError, BackupSummary, DiskStore, Store, StoredState, backup::read_backup,
    },
};

/// The size of a full chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads a backup and checks that all chunks but the last are full.
fn bytes(backup: Backup) -> Vec<u8> {
    let chunks: Vec<_> = backup.map(Result::unwrap).collect();
    let (last, others) = chunks.split_last().expect("at least one chunk");
    assert!(others.iter().all(|chunk| chunk.len() == CHUNK_BYTES));
    assert!((1..=CHUNK_BYTES).contains(&last.len()));
    chunks.concat()
}

/// Makes a backup of a registry after some batches.
async fn some_backup(turns: usize) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
    let mut work = Workload::start(loaded, 1);
    for _ in 0..turns {
        work.turn(&mut store).await.unwrap();
    }
    bytes(store.backup().unwrap())
}

#[tokio::test]
async fn backup_has_the_state_of_the_registry() {
    for seed in seeds(10) {
        println!("WAYPOST_SEED={seed}");
        let directory = TempDir::new().unwrap();
        let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
        let mut work = Workload::start(loaded, seed);
        for _ in 0..work.random.usize(..40) {
            work.turn(&mut store).await.unwrap();
        }
        let backup = bytes(store.backup().unwrap());
        let restored = read_backup(backup.as_slice()).unwrap();
        drop(store);
        let (_, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
        assert_eq!(restored.revision, work.registry.revision());
        assert_eq!(restored.leases, loaded.restored.leases);
        assert!(restored.changes.is_empty(), "a new history starts without changes");
        let summary = BackupSummary {
            revision: restored.revision,
            instances: work.registry.instances() as u64,
        };
        assert_eq!(Backup::verify(backup.as_slice()).unwrap(), summary);

        let place = TempDir::new().unwrap();
        let done = DiskStore::restore(backup.as_slice(), place.path()).unwrap();
        assert_eq!((done.revision, done.instances as u64), (summary.revision, summary.instances));
        assert_ne!(done.history, work.history);
        // The restored store continues, in a new history and without earlier changes.
        let (mut store, again) = DiskStore::open(place.path(), &limits()).unwrap();
        work.history = done.history;
        work.changes.clear();
        work.batch_starts.clear();
        work.restart(again, seed);
        for _ in 0..20 {
            work.turn(&mut store).await.unwrap();
        }
        drop(store);
        work.compare(&DiskStore::open(place.path(), &limits()).unwrap().1);
    }
}

#[tokio::test]
async fn backup_has_the_state_of_its_start() {
    for seed in seeds(5) {
        println!("WAYPOST_SEED={seed}");
        let directory = TempDir::new().unwrap();
        let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
        let mut work = Workload::start(loaded, seed);
        let mut backups = Vec::new();
        for _ in 0..10 {
            work.turn(&mut store).await.unwrap();
            let state = (work.state.clone(), work.leases.clone());
            backups.push((store.backup().unwrap(), work.registry.revision(), state));
        }
        for _ in 0..20 {
            work.turn(&mut store).await.unwrap();
        }
        for (backup, revision, state) in backups {
            let restored = read_backup(bytes(backup).as_slice()).unwrap();
            assert_eq!(restored.revision, revision);
            assert!(
                stored(&StoredState { history: work.history, restored }) == state,
                "at {revision}"
            );
        }
    }
}

#[tokio::test]
async fn backup_has_instances_of_any_size() {
    let directory = TempDir::new().unwrap();
    let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
    let mut work = Workload::start(loaded, 1);
    let register = |name: &str, bytes| {
        let metadata = Metadata::new(&BTreeMap::from([("k".to_owned(), "v".repeat(bytes))]));
        let (service, id) = (key("a/one"), id(name));
        let terms = LeaseTerms { ttl: Duration::from_secs(5), disconnect_grace: Duration::ZERO };
        Command::Register {
            service,
            id,
            content: Content::from(&Parts { metadata, ..parts(1) }),
            terms,
            instances_max: None,
        }
    };
    let sizes = [1, CHUNK_BYTES, 3 * 1024 * 1024 + 1, 100_000, 200_000, 2];
    let commands = sizes.iter().zip(["a", "b", "c", "d", "e", "f"]);
    let commands = commands.map(|(size, name)| register(name, *size)).collect();
    work.turn_with(&mut store, commands).await.unwrap();
    let restored = read_backup(bytes(store.backup().unwrap()).as_slice()).unwrap();
    assert!(stored(&StoredState { history: work.history, restored }).0 == work.state);
}

#[track_caller]
fn expect_rejected(backup: &[u8], what: &str) {
    let (read, verified) = (read_backup(backup), Backup::verify(backup));
    for error in [read.err(), verified.err()] {
        let refused = matches!(error, Some(BackupError::Damaged(_) | BackupError::Foreign));
        assert!(refused, "{what}: {error:?}");
    }
}

#[tokio::test]
async fn incomplete_backup_is_rejected() {
    let whole = some_backup(20).await;
    read_backup(whole.as_slice()).unwrap();
    for end in 0..whole.len() {
        expect_rejected(&whole[..end], &format!("cut at {end}"));
    }
    expect_rejected(&[&whole[..], &[0]].concat(), "a byte more");
    expect_rejected(&[&whole[..], &whole].concat(), "twice");
}

#[tokio::test]
async fn damaged_backup_is_rejected() {
    let whole = some_backup(40).await;
    for seed in seeds(200) {
        let mut backup = whole.clone();
        let what = damage(&mut backup, &mut Rng::with_seed(seed));
        println!("WAYPOST_SEED={seed}: {what}");
        if backup != whole {
            expect_rejected(&backup, &what);
        }
    }
}

/// Endless zeroes, and a count of the bytes read.
struct Endless<'a>(&'a [u8], u64);

impl io::Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(self.1 < 1 << 20, "reads without limit");
        let length = match self.0.read(buffer)? {
            0 => {
                buffer.fill(0);
                buffer.len()
            }
            length => length,
        };
        self.1 += length as u64;
        Ok(length)
    }
}

#[tokio::test]
async fn impossible_length_is_rejected() {
    let title = some_backup(0).await[..16].to_vec();
    // Longer than any number, and longer than what follows.
    for length in [[0xff; 16].as_slice(), &[0xff, 0xff, 0xff, 0xff, 0x7f]] {
        expect_rejected(&[&title, length, &[1, 2, 3]].concat(), "a length");
    }
    let backup = [&title[..], &[0xff; 16]].concat();
    assert!(read_backup(Endless(&backup, 0)).is_err());
    let empty = [&title[..], &[0]].concat();
    assert!(read_backup(Endless(&empty, 0)).is_err(), "empty records");
}
