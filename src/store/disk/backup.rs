//! The backup of a data directory, read while commits continue.

use std::path::PathBuf;

use redb::{Range, ReadTransaction};

use super::{
    load::DiskLoadError,
    tables::{LEASES, META, REVISION_ROW, number},
};
use crate::store::{StoreError, backup::BackupWriter};

/// A backup in progress: the state at its start, whatever is committed since.
pub(super) struct DiskBackup {
    path: PathBuf,
    leases: Range<'static, u32, &'static [u8]>,
    /// `None` once complete or failed.
    writer: Option<BackupWriter>,
}

impl DiskBackup {
    pub(super) fn start(
        transaction: &ReadTransaction,
        path: PathBuf,
    ) -> Result<Self, DiskLoadError> {
        let revision = number(transaction.open_table(META)?.get(REVISION_ROW)?);
        let revision = revision.ok_or_else(|| DiskLoadError::Damaged("meta".to_owned()))?;
        let writer = Some(BackupWriter::start(revision));
        let leases = transaction.open_table(LEASES)?.range::<u32>(..)?;
        Ok(Self { path, leases, writer })
    }

    fn chunk(&mut self, mut writer: BackupWriter) -> Result<Vec<u8>, DiskLoadError> {
        while !writer.has_chunk() {
            match self.leases.next().transpose()? {
                Some((_, lease)) => writer.put(lease.value().to_vec()),
                None => writer.end(),
            }
        }
        let chunk = writer.take();
        self.writer = (!writer.is_done()).then_some(writer);
        Ok(chunk)
    }
}

impl Iterator for DiskBackup {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let writer = self.writer.take()?;
        Some(self.chunk(writer).map_err(|fault| fault.into_error(&self.path)))
    }
}
