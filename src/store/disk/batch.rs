//! One batch on its way into the tables, and the way back.

use std::mem;

use prost::Message;
use redb::{AccessGuard, ReadableTable, Table, WriteTransaction};

use super::{
    backlog::Backlog,
    tables::{BATCH_ROW, CHANGES, META, REVISION_ROW, STAYS},
};
use crate::{
    registry::Transition,
    store::record::{ChangeRecord, StayRecord, encode_instance},
};

/// The tables while a batch is written.
pub(super) struct Batch<'a> {
    stays: Table<'a, u32, &'static [u8]>,
    changes: Table<'a, u64, &'static [u8]>,
    meta: Table<'a, &'static str, &'static [u8]>,
    undo: &'a mut Undo,
    /// The revision of the batch's latest change.
    revision: Option<u64>,
}

impl<'a> Batch<'a> {
    pub(super) fn open(
        transaction: &'a WriteTransaction,
        undo: &'a mut Undo,
    ) -> Result<Self, redb::Error> {
        Ok(Self {
            stays: transaction.open_table(STAYS)?,
            changes: transaction.open_table(CHANGES)?,
            meta: transaction.open_table(META)?,
            undo,
            revision: None,
        })
    }

    pub(super) fn put(
        &mut self,
        transition: &Transition,
        backlog: &mut Backlog,
    ) -> Result<(), redb::Error> {
        let slot = transition.slot();
        let row_before = match transition {
            Transition::Added { .. } => None,
            Transition::Removed { .. } => owned(self.stays.remove(slot)?),
            _ => owned(self.stays.get(slot)?),
        };
        let mut stay = match (&row_before, transition) {
            (_, Transition::Added { lease, terms, .. }) => StayRecord::new(*lease, *terms),
            (None, _) => return Err(redb::Error::Corrupted(format!("no stay in slot {slot}"))),
            (Some(row), _) => StayRecord::decode(row.as_slice())
                .map_err(|_| redb::Error::Corrupted(format!("the stay in slot {slot}")))?,
        };
        if let Transition::TakenOver { lease, terms, .. } = transition {
            stay = stay.under(*lease, *terms);
        }
        let change = transition.change();
        let instance_before = match &change {
            Some(change) => mem::replace(&mut stay.instance, encode_instance(&change.instance)),
            None => Vec::new(),
        };
        if !matches!(transition, Transition::Removed { .. }) {
            self.stays.insert(slot, stay.encode_to_vec().as_slice())?;
        }
        self.undo.stays.push((slot, row_before));
        let Some(change) = change else { return Ok(()) };
        let revision = change.revision().0;
        let record = ChangeRecord::new(&change.kind, stay.instance, instance_before);
        let record = record.encode_to_vec();
        let before = self.changes.insert(revision, record.as_slice())?;
        self.undo.changes.push((revision, owned(before)));
        backlog.push(revision, record.len());
        while let Some(oldest) = backlog.pop_excess() {
            self.undo.changes.push((oldest, owned(self.changes.remove(oldest)?)));
        }
        self.revision = Some(revision);
        Ok(())
    }

    pub(super) fn end(&mut self, batch: u64) -> Result<(), redb::Error> {
        let before = self.meta.insert(BATCH_ROW, batch.to_be_bytes().as_slice())?;
        self.undo.meta.push((BATCH_ROW, owned(before)));
        if let Some(revision) = self.revision {
            let before = self.meta.insert(REVISION_ROW, revision.to_be_bytes().as_slice())?;
            self.undo.meta.push((REVISION_ROW, owned(before)));
        }
        Ok(())
    }
}

/// The rows before a batch, each as often as it changed.
#[derive(Debug, Default)]
pub(super) struct Undo {
    stays: Vec<(u32, Option<Vec<u8>>)>,
    changes: Vec<(u64, Option<Vec<u8>>)>,
    meta: Vec<(&'static str, Option<Vec<u8>>)>,
}

impl Undo {
    pub(super) fn apply(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        put_back(&mut transaction.open_table(STAYS)?, &self.stays)?;
        put_back(&mut transaction.open_table(CHANGES)?, &self.changes)?;
        put_back(&mut transaction.open_table(META)?, &self.meta)
    }
}

fn put_back<'k, K>(
    table: &mut Table<'_, K, &'static [u8]>,
    rows: &[(K::SelfType<'k>, Option<Vec<u8>>)],
) -> Result<(), redb::Error>
where
    K: redb::Key + 'static,
    K::SelfType<'k>: Copy,
{
    // The last first: what a row was before the batch is put back last.
    for (key, value) in rows.iter().rev() {
        match value {
            Some(value) => drop(table.insert(*key, value.as_slice())?),
            None => drop(table.remove(*key)?),
        }
    }
    Ok(())
}

fn owned(row: Option<AccessGuard<'_, &'static [u8]>>) -> Option<Vec<u8>> {
    row.map(|row| row.value().to_vec())
}
