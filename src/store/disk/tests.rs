//! Tests of the disk store on a disk that fails or loses power at any step. A crash tears writes
//! that were not synced.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use redb::StorageBackend;
use waypost_core::testing::{content, id, key};

use super::{tables::CHANGES, *};
use crate::{
    model::{LeaseTerms, Tick, WallTime},
    registry::{Command, LeaseSeed, Now, Registry, Target},
};

/// The content of a disk.
#[derive(Debug, Default)]
struct Platter {
    /// Synced bytes, which survive a crash.
    durable: Vec<u8>,
    /// Bytes that reads return.
    seen: Vec<u8>,
    /// Writes since the last sync.
    unsynced: Vec<Step>,
    /// The number of steps before all others fail; `None` for no failure.
    steps_left: Option<usize>,
}

#[derive(Debug, Clone)]
enum Step {
    Length(usize),
    Write(usize, Vec<u8>),
}

/// A disk in memory.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct FaultyDisk(Arc<Mutex<Platter>>);

impl Step {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }
}

impl FaultyDisk {
    /// Lets this many further steps succeed, and no others.
    pub(in crate::store) fn fail_after(&self, steps: Option<usize>) {
        self.0.lock().unwrap().steps_left = steps;
    }

    /// Returns the disk after a power failure: any part of unsynced writes may be on it.
    pub(in crate::store) fn crash(&self, random: &mut Rng) -> Self {
        let platter = self.0.lock().unwrap();
        let mut bytes = platter.durable.clone();
        for step in &platter.unsynced {
            match (step, random.u8(..3)) {
                (_, 0) => {}
                (Step::Write(at, data), 1) => {
                    // Sectors are atomic.
                    let cut = random.usize(..=data.len()) / 512 * 512;
                    Step::Write(*at, data[..cut].to_vec()).apply(&mut bytes);
                }
                (step, _) => step.apply(&mut bytes),
            }
        }
        let platter = Platter { durable: bytes.clone(), seen: bytes, ..Platter::default() };
        Self(Arc::new(Mutex::new(platter)))
    }

    fn step(&self, step: Option<Step>) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        match &mut platter.steps_left {
            Some(0) => return Err(io::Error::other("the disk failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        match step {
            Some(step) => {
                step.apply(&mut platter.seen);
                platter.unsynced.push(step);
            }
            None => {
                platter.durable = platter.seen.clone();
                platter.unsynced.clear();
            }
        }
        Ok(())
    }

    fn database(&self) -> Database {
        file::builder().create_with_backend(self.clone()).unwrap()
    }

    /// Writes to the disk without the store.
    fn rewrite(&self, rewrite: impl FnOnce(&redb::WriteTransaction)) {
        let database = self.database();
        let transaction = database.begin_write().unwrap();
        rewrite(&transaction);
        transaction.commit().unwrap();
    }

    /// Returns the format version on the disk.
    fn format(&self) -> Option<u64> {
        let database = self.database();
        let transaction = database.begin_read().unwrap();
        number(transaction.open_table(META).unwrap().get(FORMAT_ROW).unwrap())
    }

    /// Opens the store on the disk, or creates it.
    pub(in crate::store) fn open(
        &self,
        limits: &Limits,
    ) -> Result<(DiskStore, StoredState), StoreError> {
        let disk = self.clone();
        let open = move || Ok(file::builder().create_with_backend(disk.clone())?);
        if self.0.lock().unwrap().seen.is_empty() {
            file::initialize(&open().unwrap(), &RestoredState::default()).unwrap();
        }
        DiskStore::open_with(Box::new(open), PathBuf::from("disk"), None, limits)
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("a small file");
        let platter = self.0.lock().unwrap();
        let bytes = platter.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(Some(Step::Length(usize::try_from(len).expect("a small file"))))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("a small file");
        self.step(Some(Step::Write(at, data.to_vec())))
    }
}

/// Opens a store after a foreign write.
fn forged(forge: impl FnOnce(&redb::WriteTransaction)) -> Result<StoredState, String> {
    let disk = FaultyDisk::default();
    drop(disk.open(&Limits::default()).unwrap());
    disk.rewrite(forge);
    disk.open(&Limits::default()).map(|(_, loaded)| loaded).map_err(|error| error.to_string())
}

fn put_number(transaction: &redb::WriteTransaction, row: &'static str, number: u64) {
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert(row, number.to_be_bytes().as_slice()).unwrap();
}

/// Encodes an added instance at a revision.
fn added(revision: u8) -> Vec<u8> {
    const INSTANCE: &[u8] =
        b"\x0a\x01a\x12\x01b\x1a\x01c\x22\x01h\x28\x50\x38\x02\x4a\x011\x50\x64";
    let mut instance = INSTANCE.to_vec();
    if revision > 0 {
        instance.extend([0x70, revision]);
    }
    [&[0x0a, u8::try_from(instance.len()).unwrap()], instance.as_slice()].concat()
}

/// Encodes a row of a first change and its followers.
fn row(first: Vec<u8>, next: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    next.into_iter().fold(first, |row, next| {
        [row.as_slice(), &[0x2a, u8::try_from(next.len()).unwrap()], next.as_slice()].concat()
    })
}

fn additions(revisions: &[u8]) -> Vec<u8> {
    row(added(revisions[0]), revisions[1..].iter().copied().map(added))
}

/// The rows of a log, by the revisions of their first changes.
type Log<'a> = &'a [(u64, Vec<u8>)];

/// Opens a store with a log of these rows that ends at revision 3.
fn forged_log(rows: Log<'_>) -> Result<StoredState, String> {
    forged(|transaction| {
        put_number(transaction, REVISION_ROW, 3);
        let mut changes = transaction.open_table(CHANGES).unwrap();
        for (first, row) in rows {
            changes.insert(first, row.as_slice()).unwrap();
        }
    })
}

#[test]
fn log_is_read_however_its_rows_are_cut() {
    let logs: [Log<'_>; 5] = [
        &[],
        &[(3, additions(&[3]))],
        &[(1, additions(&[1, 2, 3]))],
        &[(1, additions(&[1, 2])), (3, additions(&[3]))],
        &[(1, additions(&[1])), (2, additions(&[2])), (3, additions(&[3]))],
    ];
    for (log, count) in logs.into_iter().zip([0, 1, 3, 3, 3]) {
        let changes = forged_log(log).unwrap().restored.changes;
        let revisions: Vec<_> = changes.iter().map(|change| change.revision().0).collect();
        assert_eq!(revisions, [1, 2, 3][3 - count..]);
    }
}

#[test]
fn invalid_log_is_rejected() {
    let endless = forged(|transaction| put_number(transaction, REVISION_ROW, u64::MAX));
    assert!(endless.unwrap_err().contains("meta"));
    let cut = |row: Vec<u8>| row[..row.len() - 1].to_vec();
    let logs: [(&str, Log<'_>); 13] = [
        ("changes/0", &[(0, additions(&[0, 1, 2, 3]))]),
        ("changes/1", &[(1, additions(&[0]))]),
        ("changes/2", &[(2, additions(&[1, 2, 3]))]),
        ("changes/2", &[(1, additions(&[1, 3]))]),
        ("changes/2", &[(1, additions(&[1, 1, 2, 3]))]),
        ("changes/2", &[(1, additions(&[1])), (3, additions(&[3]))]),
        ("changes/3", &[(1, additions(&[1, 2])), (2, additions(&[2, 3]))]),
        ("changes/3", &[(1, additions(&[1, 2]))]),
        ("changes/4", &[(1, additions(&[1, 2, 3, 4]))]),
        ("changes/4", &[(4, additions(&[4]))]),
        (&u64::MAX.to_string(), &[(u64::MAX, additions(&[3]))]),
        ("changes/1", &[(1, row(added(1), [additions(&[2, 3])]))]),
        ("changes/1", &[(1, cut(additions(&[1, 2, 3])))]),
    ];
    for (place, log) in logs {
        let refused = forged_log(log).unwrap_err();
        assert!(refused.contains(&format!("{place})")), "{place}: {refused}");
    }
}

/// Only files of format 2 may have rows of several changes.
#[tokio::test]
async fn batch_raises_the_format() {
    let disk = FaultyDisk::default();
    drop(disk.open(&Limits::default()).unwrap());
    disk.rewrite(|transaction| {
        put_number(transaction, FORMAT_ROW, 1);
        put_number(transaction, REVISION_ROW, 1);
        transaction.open_table(CHANGES).unwrap().insert(1, added(1).as_slice()).unwrap();
    });
    let (mut store, loaded) = disk.open(&Limits::default()).unwrap();
    assert_eq!(loaded.restored.changes.len(), 1);
    drop(store);
    assert_eq!(disk.format(), Some(1), "nothing was written");
    (store, _) = disk.open(&Limits::default()).unwrap();
    store.commit(&[]).await.unwrap();
    drop(store);
    assert_eq!(disk.format(), Some(FORMAT));
    assert_eq!(disk.open(&Limits::default()).unwrap().1.restored.changes.len(), 1);
}

#[test]
fn unsupported_format_is_rejected() {
    for format in [0, FORMAT + 1] {
        let refused = forged(|transaction| put_number(transaction, FORMAT_ROW, format));
        let expected = format!("its format is {format}, this version supports up to {FORMAT}");
        assert!(refused.unwrap_err().contains(&expected));
    }
}

/// Plans and absorbs commands. Returns their transitions.
fn transitions(registry: &mut Registry, commands: Vec<Command>) -> Vec<Transition> {
    let mut plan = registry.plan(Now { tick: Tick(1), wall: WallTime(1) });
    for command in commands {
        plan.decide(command).unwrap();
    }
    let transitions = plan.into_transitions();
    for transition in &transitions {
        registry.absorb(transition.clone(), Tick(1));
    }
    transitions
}

#[tokio::test]
async fn batch_that_contradicts_the_stored_leases_is_rejected() {
    let ids = || (0..4).map(|number| id(&format!("i{number}")));
    let terms = LeaseTerms { ttl: Duration::from_secs(5), disconnect_grace: Duration::ZERO };
    let register = |id| {
        let content = content(1);
        Command::Register { service: key("a"), id, content, terms, instances_max: None }
    };
    let deregister = |id| Command::Deregister { target: Target::Identity(key("a"), id) };
    let mut registry = Registry::new(0, LeaseSeed::repeatable(1), &Limits::default());
    let added = transitions(&mut registry, ids().map(register).collect());
    let removed = transitions(&mut registry, ids().map(deregister).collect());

    let disk = FaultyDisk::default();
    let (mut store, _) = disk.open(&Limits::default()).unwrap();
    // A single one, and several in adjacent slots.
    for (done, again) in [(&added, &added[2..3]), (&removed, &removed[2..3])] {
        store.commit(done).await.unwrap();
        for misfit in [again, done] {
            let refused = store.commit(misfit).await;
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
    }
    drop(store);
    let (_, loaded) = disk.open(&Limits::default()).unwrap();
    assert_eq!((loaded.restored.leases.len(), loaded.restored.changes.len()), (0, 8));
}
