//! Images: what is in them, and that only whole ones are read.

use std::{collections::BTreeMap, io, time::Duration};

use fastrand::Rng;
use tempfile::TempDir;
use waypost_core::testing::{id, key, parts};

use super::{Work, damage, kept, limits, seeds};
use crate::{
    model::{Content, LeaseTerms, Metadata, Parts},
    registry::Command,
    store::{
        Backup, BackupError, BackupSummary, DiskStore, Store, StoredState, backup::read_backup,
    },
};

/// What the longest chunk has.
const CHUNK_BYTES: usize = 256 * 1024;

/// The bytes of an image, whose chunks are as long as the longest but for the last.
fn bytes(image: Backup) -> Vec<u8> {
    let chunks: Vec<_> = image.map(Result::unwrap).collect();
    let (last, others) = chunks.split_last().expect("it has a chunk");
    assert!(others.iter().all(|chunk| chunk.len() == CHUNK_BYTES));
    assert!((1..=CHUNK_BYTES).contains(&last.len()));
    chunks.concat()
}

/// The image of a registry after some turns.
async fn some_image(turns: usize) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
    let mut work = Work::begin(loaded, 1);
    for _ in 0..turns {
        work.turn(&mut store).await.unwrap();
    }
    bytes(store.backup().unwrap())
}

#[tokio::test]
async fn what_an_image_held_is_what_the_registry_had() {
    for seed in seeds(10) {
        println!("WAYPOST_SEED={seed}");
        let directory = TempDir::new().unwrap();
        let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
        let mut work = Work::begin(loaded, seed);
        for _ in 0..work.random.usize(..40) {
            work.turn(&mut store).await.unwrap();
        }
        let image = bytes(store.backup().unwrap());
        let restored = read_backup(image.as_slice()).unwrap();
        drop(store);
        let (_, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
        assert_eq!(restored.revision, work.registry.revision());
        assert_eq!(restored.stays, loaded.restored.stays);
        assert!(restored.changes.is_empty(), "a new history has no changes to tell");
        let contents = BackupSummary {
            revision: restored.revision,
            instances: work.registry.instances() as u64,
        };
        assert_eq!(Backup::verify(image.as_slice()).unwrap(), contents);

        let place = TempDir::new().unwrap();
        let done = DiskStore::restore(image.as_slice(), place.path()).unwrap();
        assert_eq!((done.revision, done.instances as u64), (contents.revision, contents.instances));
        assert_ne!(done.history, work.history);
        // From there it goes on, in another history and with none of the changes before.
        let (mut store, again) = DiskStore::open(place.path(), &limits()).unwrap();
        work.history = done.history;
        work.changes.clear();
        work.begun.clear();
        work.restart(again, seed);
        for _ in 0..20 {
            work.turn(&mut store).await.unwrap();
        }
        drop(store);
        work.compare(&DiskStore::open(place.path(), &limits()).unwrap().1);
    }
}

#[tokio::test]
async fn an_image_is_of_the_moment_at_which_it_began() {
    for seed in seeds(5) {
        println!("WAYPOST_SEED={seed}");
        let directory = TempDir::new().unwrap();
        let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
        let mut work = Work::begin(loaded, seed);
        let mut images = Vec::new();
        for _ in 0..10 {
            work.turn(&mut store).await.unwrap();
            let state = (work.state.clone(), work.leases.clone());
            images.push((store.backup().unwrap(), work.registry.revision(), state));
        }
        for _ in 0..20 {
            work.turn(&mut store).await.unwrap();
        }
        for (image, revision, state) in images {
            let restored = read_backup(bytes(image).as_slice()).unwrap();
            assert_eq!(restored.revision, revision);
            assert!(
                kept(&StoredState { history: work.history, restored }) == state,
                "at {revision}"
            );
        }
    }
}

#[tokio::test]
async fn an_instance_of_any_size_is_in_it() {
    let directory = TempDir::new().unwrap();
    let (mut store, loaded) = DiskStore::open(directory.path(), &limits()).unwrap();
    let mut work = Work::begin(loaded, 1);
    let register = |name: &str, bytes| {
        let metadata = Metadata::new(&BTreeMap::from([("k".to_owned(), "v".repeat(bytes))]));
        let (service, id) = (key("a/one"), id(name));
        let terms = LeaseTerms { ttl: Duration::from_secs(5), disconnect_grace: Duration::ZERO };
        Command::Register {
            service,
            id,
            content: Content::from(&Parts { metadata, ..parts(1) }),
            terms,
        }
    };
    let sizes = [1, CHUNK_BYTES, 3 * 1024 * 1024 + 1, 100_000, 200_000, 2];
    let commands = sizes.iter().zip(["a", "b", "c", "d", "e", "f"]);
    let commands = commands.map(|(size, name)| register(name, *size)).collect();
    work.turn_with(&mut store, commands).await.unwrap();
    let restored = read_backup(bytes(store.backup().unwrap()).as_slice()).unwrap();
    assert!(kept(&StoredState { history: work.history, restored }).0 == work.state);
}

#[track_caller]
fn expect_refused(image: &[u8], what: &str) {
    let (read, verified) = (read_backup(image), Backup::verify(image));
    for error in [read.err(), verified.err()] {
        let refused = matches!(error, Some(BackupError::Damaged(_) | BackupError::Foreign));
        assert!(refused, "{what}: {error:?}");
    }
}

#[tokio::test]
async fn a_part_of_an_image_is_none() {
    let whole = some_image(20).await;
    read_backup(whole.as_slice()).unwrap();
    for end in 0..whole.len() {
        expect_refused(&whole[..end], &format!("cut at {end}"));
    }
    expect_refused(&[&whole[..], &[0]].concat(), "a byte more");
    expect_refused(&[&whole[..], &whole].concat(), "twice");
}

#[tokio::test]
async fn a_damaged_image_is_refused() {
    let whole = some_image(40).await;
    for seed in seeds(200) {
        let mut image = whole.clone();
        let what = damage(&mut image, &mut Rng::with_seed(seed));
        println!("WAYPOST_SEED={seed}: {what}");
        if image != whole {
            expect_refused(&image, &what);
        }
    }
}

/// Zeroes without an end, and how many were read.
struct Endless<'a>(&'a [u8], u64);

impl io::Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(self.1 < 1 << 20, "it reads on and on");
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
async fn a_length_that_can_not_be_is_refused() {
    let title = some_image(0).await[..16].to_vec();
    // Longer than any number, and longer than what follows.
    for length in [[0xff; 16].as_slice(), &[0xff, 0xff, 0xff, 0xff, 0x7f]] {
        expect_refused(&[&title, length, &[1, 2, 3]].concat(), "a length");
    }
    let image = [&title[..], &[0xff; 16]].concat();
    assert!(read_backup(Endless(&image, 0)).is_err());
    let empty = [&title[..], &[0]].concat();
    assert!(read_backup(Endless(&empty, 0)).is_err(), "records with nothing in them");
}
