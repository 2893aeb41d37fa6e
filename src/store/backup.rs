//! An image of a registry as bytes: what a backup is. It begins with a line that names it, holds each
//! instance with its lease as a record with its length before it, and ends with a checksum
//! (SHA-256) of all that came before.

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
    registry::{Restored, Stay},
};

/// How an image of this format begins.
const TITLE: &[u8] = b"waypost image 1\n";
/// So many bytes make a chunk; the last one may have fewer.
const CHUNK_BYTES: usize = 256 * 1024;
const CHECKSUM_BYTES: usize = 32;

const TOO_EARLY: &str = "it ends too early";
const NOT_A_LEASE: &str = "a record is none of an instance with its lease";

/// An image under way, a chunk at a time. Getting the next one blocks.
pub struct Backup(Box<dyn Iterator<Item = Result<Vec<u8>, StoreError>> + Send>);

/// What is in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSummary {
    /// The position that it is of.
    pub revision: Revision,
    /// How many instances.
    pub instances: u64,
}

impl Backup {
    pub(super) fn new(
        chunks: impl Iterator<Item = Result<Vec<u8>, StoreError>> + Send + 'static,
    ) -> Self {
        Self(Box::new(chunks))
    }

    /// Reads all of an image, and says what is in it. Blocks.
    ///
    /// Errors: those for which it could not be restored.
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

/// Why an image can't be restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// It can't be read.
    #[error("the image can't be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is something else.
    #[error("this is no image of a registry, or one that a newer version made")]
    Foreign,
    /// It is not as it was made.
    #[error("the image is damaged: {0}")]
    Damaged(&'static str),
    /// There is no place for it.
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
    /// The first: the position.
    #[prost(uint64, tag = "1")]
    Revision(u64),
    /// The others, in the order of their slots: each a [`LeaseRecord`].
    #[prost(bytes = "vec", tag = "2")]
    Lease(Vec<u8>),
    /// The last: how many stays there were.
    #[prost(uint64, tag = "3")]
    End(u64),
}

/// Makes an image.
pub(super) struct BackupWriter {
    /// What was not taken yet.
    bytes: Vec<u8>,
    checksum: Sha256,
    stays: u64,
    /// Whether everything was put.
    ended: bool,
}

impl BackupWriter {
    pub(super) fn begin(revision: u64) -> Self {
        let (bytes, checksum) = (TITLE.to_vec(), Sha256::new_with_prefix(TITLE));
        let mut writer = Self { bytes, checksum, stays: 0, ended: false };
        writer.add(BackupPart::Revision(revision));
        writer
    }

    pub(super) fn put(&mut self, stay: Vec<u8>) {
        self.add(BackupPart::Lease(stay));
        self.stays += 1;
    }

    fn add(&mut self, part: BackupPart) {
        let record = BackupRecord { part: Some(part) }.encode_length_delimited_to_vec();
        self.checksum.update(&record);
        self.bytes.extend(record);
    }

    /// Nothing is put any more.
    pub(super) fn end(&mut self) {
        self.add(BackupPart::End(self.stays));
        self.bytes.extend_from_slice(&self.checksum.finalize_reset());
        self.ended = true;
    }

    pub(super) fn has_chunk(&self) -> bool {
        self.ended || self.bytes.len() >= CHUNK_BYTES
    }

    /// The next chunk, however long a record is.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.bytes.len().min(CHUNK_BYTES));
        mem::replace(&mut self.bytes, rest)
    }

    /// Whether all of it was taken.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.bytes.is_empty()
    }
}

/// Reads a whole image.
pub(super) fn read_backup(source: impl Read) -> Result<Restored, BackupError> {
    let mut stays = Vec::new();
    let revision = read_leases(source, |stay| stays.push(stay))?.revision;
    Ok(Restored { revision, stays, ..Restored::default() })
}

/// Reads a whole image, which is none where this ends with an error, whatever was taken by then.
fn read_leases(
    source: impl Read,
    mut take: impl FnMut(Stay),
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
        return Err(BackupError::Damaged("it does not begin with a position"));
    };
    let mut contents = BackupSummary { revision: Revision(revision), instances: 0 };
    let (mut keys, mut latest_slot) = (KeyInterner::default(), None);
    loop {
        match reader.part()? {
            Some(BackupPart::Lease(stay)) => {
                let stay = LeaseRecord::read(&stay, &mut keys);
                let stay = stay.map_err(|_| BackupError::Damaged(NOT_A_LEASE))?;
                let slot = Some(stay.lease.slot());
                if latest_slot >= slot {
                    return Err(BackupError::Damaged("records are not in order"));
                }
                latest_slot = slot;
                contents.instances += 1;
                take(stay);
            }
            Some(BackupPart::End(count)) if count == contents.instances => break,
            _ => return Err(BackupError::Damaged("records are missing or unknown")),
        }
    }
    reader.end()?;
    Ok(contents)
}

struct BackupReader<R> {
    source: BufReader<R>,
    checksum: Sha256,
}

impl<R: Read> BackupReader<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Damaged(TOO_EARLY),
            _ => error.into(),
        })?;
        self.checksum.update(bytes);
        Ok(())
    }

    fn part(&mut self) -> Result<Option<BackupPart>, BackupError> {
        let length = self.length()?;
        // No more than there is, whatever the length says.
        let mut record = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut record)?;
        if (record.len() as u64) < length {
            return Err(BackupError::Damaged(TOO_EARLY));
        }
        self.checksum.update(&record);
        let record = BackupRecord::decode(record.as_slice());
        Ok(record.map_err(|_| BackupError::Damaged("a record is unreadable"))?.part)
    }

    /// Of the record that follows.
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

    /// The checksum, and nothing behind it.
    fn end(mut self) -> Result<(), BackupError> {
        let mut checksum = [0; CHECKSUM_BYTES];
        let expected = self.checksum.clone().finalize();
        self.fill(&mut checksum)?;
        if checksum != *expected {
            return Err(BackupError::Damaged("its checksum is another"));
        }
        match self.source.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(BackupError::Damaged("it goes on behind its end")),
        }
    }
}
