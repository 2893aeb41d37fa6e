//! The image of a directory, read while the store works on.

use std::path::PathBuf;

use redb::{Range, ReadTransaction};

use super::{
    load::Fault,
    tables::{META, REVISION_ROW, STAYS, number},
};
use crate::store::{StoreError, image::ImageWriter};

/// An image under way: what was committed when it began, whatever is committed since.
pub(super) struct DiskImage {
    path: PathBuf,
    stays: Range<'static, u32, &'static [u8]>,
    /// `None` once it is whole, or failed.
    writer: Option<ImageWriter>,
}

impl DiskImage {
    pub(super) fn begin(transaction: &ReadTransaction, path: PathBuf) -> Result<Self, Fault> {
        let revision = number(transaction.open_table(META)?.get(REVISION_ROW)?);
        let revision = revision.ok_or_else(|| Fault::Damaged("meta".to_owned()))?;
        let writer = Some(ImageWriter::begin(revision));
        let stays = transaction.open_table(STAYS)?.range::<u32>(..)?;
        Ok(Self { path, stays, writer })
    }

    fn chunk(&mut self, mut writer: ImageWriter) -> Result<Vec<u8>, Fault> {
        while !writer.has_chunk() {
            match self.stays.next().transpose()? {
                Some((_, stay)) => writer.put(stay.value().to_vec()),
                None => writer.end(),
            }
        }
        let chunk = writer.take();
        self.writer = (!writer.is_done()).then_some(writer);
        Ok(chunk)
    }
}

impl Iterator for DiskImage {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let writer = self.writer.take()?;
        Some(self.chunk(writer).map_err(|fault| fault.into_error(&self.path)))
    }
}
