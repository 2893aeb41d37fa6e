//! The backup format: a title line, a length-prefixed record for each instance with its lease, and
//! a SHA-256 checksum of everything before it. Pure, but for the reader it is given.

use std::{
    fmt,
    io::{self, BufReader, Read},
    mem,
};

use prost::{Message, Oneof};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    StoreError,
    record::{KeyInterner, LeaseRecord},
};
use crate::{
    model::Revision,
    registry::{RestoredLease, RestoredState},
};

/// The title line of this format.
const TITLE: &[u8] = b"waypost image 1\n";
/// The size of a chunk; the last one may be smaller.
const CHUNK_BYTES: usize = 256 * 1024;
const CHECKSUM_BYTES: usize = 32;

const TRUNCATED: &str = "it is truncated";
const NOT_A_LEASE: &str = "a record is not an instance with its lease";

/// A backup in progress, as an iterator of chunks. Reading the next chunk blocks.
pub struct Backup(Box<dyn Iterator<Item = Result<Vec<u8>, StoreError>> + Send>);

/// The content of a backup, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSummary {
    /// The revision of the backup.
    pub revision: Revision,
    /// The number of instances.
    pub instances: u64,
}

impl Backup {
    pub(super) fn new(
        chunks: impl Iterator<Item = Result<Vec<u8>, StoreError>> + Send + 'static,
    ) -> Self {
        Self(Box::new(chunks))
    }

    /// Reads a whole backup and returns its summary. Blocks.
    ///
    /// Errors: the same as when it is restored.
    pub fn verify(source: impl Read) -> Result<BackupSummary, BackupError> {
        read_leases(source, drop)
    }
}

impl Iterator for Backup {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl fmt::Debug for Backup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Backup").finish_non_exhaustive()
    }
}

/// The error of reading or restoring a backup.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Reading failed.
    #[error("can't read the backup: {0}")]
    Unreadable(#[from] io::Error),
    /// The title line is missing.
    #[error("not a Waypost backup, or written by a newer version")]
    Foreign,
    /// The content differs from what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
    /// The data directory can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, PartialEq, Message)]
struct BackupRecord {
    #[prost(oneof = "BackupPart", tags = "1, 2, 3")]
    part: Option<BackupPart>,
}

#[derive(Clone, PartialEq, Oneof)]
enum BackupPart {
    /// The first record: the revision.
    #[prost(uint64, tag = "1")]
    Revision(u64),
    /// All others, in the order of their slots: each a [`LeaseRecord`].
    #[prost(bytes = "vec", tag = "2")]
    Lease(Vec<u8>),
    /// The last record: the number of leases.
    #[prost(uint64, tag = "3")]
    End(u64),
}

/// Encodes a backup.
pub(super) struct BackupWriter {
    /// Encoded bytes that were not taken yet.
    bytes: Vec<u8>,
    checksum: Sha256,
    leases: u64,
    /// Set once the checksum is encoded.
    ended: bool,
}

impl BackupWriter {
    pub(super) fn start(revision: u64) -> Self {
        let (bytes, checksum) = (TITLE.to_vec(), Sha256::new_with_prefix(TITLE));
        let mut writer = Self { bytes, checksum, leases: 0, ended: false };
        writer.add(BackupPart::Revision(revision));
        writer
    }

    pub(super) fn put(&mut self, lease: Vec<u8>) {
        self.add(BackupPart::Lease(lease));
        self.leases += 1;
    }

    fn add(&mut self, part: BackupPart) {
        let record = BackupRecord { part: Some(part) }.encode_length_delimited_to_vec();
        self.checksum.update(&record);
        self.bytes.extend(record);
    }

    /// Encodes the end and the checksum.
    pub(super) fn end(&mut self) {
        self.add(BackupPart::End(self.leases));
        self.bytes.extend_from_slice(&self.checksum.finalize_reset());
        self.ended = true;
    }

    pub(super) fn has_chunk(&self) -> bool {
        self.ended || self.bytes.len() >= CHUNK_BYTES
    }

    /// Takes the next chunk; a record may span several.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.bytes.len().min(CHUNK_BYTES));
        mem::replace(&mut self.bytes, rest)
    }

    /// Returns whether the last chunk was taken.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.bytes.is_empty()
    }
}

/// Decodes a whole backup.
pub(super) fn read_backup(source: impl Read) -> Result<RestoredState, BackupError> {
    let mut leases = Vec::new();
    let revision = read_leases(source, |lease| leases.push(lease))?.revision;
    Ok(RestoredState { revision, leases, ..RestoredState::default() })
}

/// Decodes a whole backup, passing each lease to `take`. After an error, nothing that `take`
/// received is valid.
fn read_leases(
    source: impl Read,
    mut take: impl FnMut(RestoredLease),
) -> Result<BackupSummary, BackupError> {
    let mut reader = BackupReader { source: BufReader::new(source), checksum: Sha256::new() };
    let mut title = [0; TITLE.len()];
    reader.fill(&mut title).map_err(|error| match error {
        BackupError::Damaged(_) => BackupError::Foreign,
        other => other,
    })?;
    if title != TITLE {
        return Err(BackupError::Foreign);
    }
    let Some(BackupPart::Revision(revision)) = reader.part()? else {
        return Err(BackupError::Damaged("it does not start with a revision"));
    };
    let mut summary = BackupSummary { revision: Revision(revision), instances: 0 };
    let (mut keys, mut latest_slot) = (KeyInterner::default(), None);
    loop {
        match reader.part()? {
            Some(BackupPart::Lease(lease)) => {
                let lease = LeaseRecord::read(&lease, &mut keys);
                let lease = lease.map_err(|_| BackupError::Damaged(NOT_A_LEASE))?;
                let slot = Some(lease.lease.slot());
                if latest_slot >= slot {
                    return Err(BackupError::Damaged("records are not in order"));
                }
                latest_slot = slot;
                summary.instances += 1;
                take(lease);
            }
            Some(BackupPart::End(count)) if count == summary.instances => break,
            _ => return Err(BackupError::Damaged("records are missing or unknown")),
        }
    }
    reader.end()?;
    Ok(summary)
}

struct BackupReader<R> {
    source: BufReader<R>,
    checksum: Sha256,
}

impl<R: Read> BackupReader<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Damaged(TRUNCATED),
            _ => error.into(),
        })?;
        self.checksum.update(bytes);
        Ok(())
    }

    fn part(&mut self) -> Result<Option<BackupPart>, BackupError> {
        let length = self.length()?;
        // Grows with the bytes that exist, not with a length that may be damaged.
        let mut record = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut record)?;
        if (record.len() as u64) < length {
            return Err(BackupError::Damaged(TRUNCATED));
        }
        self.checksum.update(&record);
        let record = BackupRecord::decode(record.as_slice());
        Ok(record.map_err(|_| BackupError::Damaged("a record is unreadable"))?.part)
    }

    /// Reads the length of the next record.
    fn length(&mut self) -> Result<u64, BackupError> {
        let mut length = 0;
        for shift in (0..35).step_by(7) {
            let mut byte = [0];
            self.fill(&mut byte)?;
            length |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(length);
            }
        }
        Err(BackupError::Damaged("a record is too long"))
    }

    /// Verifies the checksum and the end of the file.
    fn end(mut self) -> Result<(), BackupError> {
        let mut checksum = [0; CHECKSUM_BYTES];
        let expected = self.checksum.clone().finalize();
        self.fill(&mut checksum)?;
        if checksum != *expected {
            return Err(BackupError::Damaged("the checksum does not match"));
        }
        match self.source.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(BackupError::Damaged("data follows its end")),
        }
    }
}
