//! A disc that fails and crashes at any step, with whatever it had not been told to sync torn.

use std::sync::{Arc, Mutex};

use fastrand::Rng;
use redb::StorageBackend;

use super::{
    tables::{CHANGES, REVISION_ROW},
    *,
};
use crate::store::record::{ChangeRecord, Keys};

/// What a disc holds.
#[derive(Debug, Default)]
struct Platter {
    /// What survives.
    durable: Vec<u8>,
    /// What is read.
    seen: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Step>,
    /// Steps until all further ones fail; `None`: never.
    steps_left: Option<usize>,
}

#[derive(Debug, Clone)]
enum Step {
    Length(usize),
    Write(usize, Vec<u8>),
}

/// A disc in memory.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Disc(Arc<Mutex<Platter>>);

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

impl Disc {
    /// From here on this many steps succeed, and no further one.
    pub(in crate::store) fn fail_after(&self, steps: Option<usize>) {
        self.0.lock().unwrap().steps_left = steps;
    }

    /// The disc after the power failed: of what was not synced any part may have been written.
    pub(in crate::store) fn crash(&self, random: &mut Rng) -> Self {
        let platter = self.0.lock().unwrap();
        let mut bytes = platter.durable.clone();
        for step in &platter.unsynced {
            match (step, random.u8(..3)) {
                (_, 0) => {}
                (Step::Write(at, data), 1) => {
                    // Sectors are whole.
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
            Some(0) => return Err(io::Error::other("the disc failed")),
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

    /// A store on the disc, begun where there is none.
    pub(in crate::store) fn open(
        &self,
        limits: &Limits,
    ) -> Result<(DiskStore, Loaded), StoreError> {
        let disc = self.clone();
        let open = move || Ok(file::builder().create_with_backend(disc.clone())?);
        if self.0.lock().unwrap().seen.is_empty() {
            file::begin_with(&open().unwrap(), &Restored::default()).unwrap();
        }
        DiskStore::open_with(Box::new(open), PathBuf::from("disc"), None, limits)
    }
}

impl StorageBackend for Disc {
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

/// An addition at revision 0, which is before the first change of any history.
const ADDED_AT_0: &[u8] =
    b"\x0a\x15\x0a\x01a\x12\x01b\x1a\x01c\x22\x01h\x28\x50\x38\x02\x4a\x011\x50\x64";

#[test]
fn what_no_registry_can_have_written_is_refused() {
    let read = ChangeRecord::read(ADDED_AT_0, &mut Keys::default()).unwrap();
    assert_eq!(read.revision().0, 0);
    let forge = |forge: &dyn Fn(&redb::WriteTransaction)| {
        let disc = Disc::default();
        drop(disc.open(&Limits::default()).unwrap());
        let database = file::builder().create_with_backend(disc.clone()).unwrap();
        let transaction = database.begin_write().unwrap();
        forge(&transaction);
        transaction.commit().unwrap();
        drop(database);
        disc.open(&Limits::default()).unwrap_err().to_string()
    };
    let early = forge(&|transaction| {
        let mut changes = transaction.open_table(CHANGES).unwrap();
        changes.insert(0, ADDED_AT_0).unwrap();
    });
    assert!(early.contains("changes/0"), "{early}");
    let endless = forge(&|transaction| {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert(REVISION_ROW, u64::MAX.to_be_bytes().as_slice()).unwrap();
    });
    assert!(endless.contains("meta"), "{endless}");
}
