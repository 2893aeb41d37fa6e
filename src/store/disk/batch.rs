//! One batch on its way into the tables, and the way back.

use prost::Message;
use redb::{AccessGuard, ReadableTable, Table, WriteTransaction};

use super::{
    backlog::Backlog,
    rows::Rows,
    tables::{CHANGES, META, STAYS},
};
use crate::{
    registry::Transition,
    store::record::{StayRecord, put_stay},
};

/// Puts what transitions made of stays, and their changes, and says which revision is the latest of
/// these.
pub(super) fn put(
    transaction: &WriteTransaction,
    transitions: &[Transition],
    backlog: &mut Backlog,
    undo: &mut Undo,
) -> Result<Option<u64>, redb::Error> {
    let mut stays = Stays { table: transaction.open_table(STAYS)?, undo, row: Vec::new() };
    let (mut rows, mut revision) = (Rows::default(), None);
    for transition in transitions {
        let Some(change) = transition.change() else {
            stays.put(transition, None)?;
            continue;
        };
        revision = Some(change.revision().0);
        let place = rows.push(&change);
        stays.put(transition, Some(rows.instance(place)))?;
    }
    drop(stays);
    if let Some(revision) = revision {
        put_rows(transaction.open_table(CHANGES)?, &rows, revision, backlog, undo)?;
    }
    Ok(revision)
}

struct Stays<'a> {
    table: Table<'a, u32, &'static [u8]>,
    undo: &'a mut Undo,
    /// One on its way there.
    row: Vec<u8>,
}

impl Stays<'_> {
    /// Puts what a transition made of its slot; it came with an instance where there is a change.
    fn put(&mut self, transition: &Transition, instance: Option<&[u8]>) -> Result<(), redb::Error> {
        let slot = transition.slot();
        let before = match transition {
            Transition::Added { .. } => None,
            Transition::Removed { .. } => owned(self.table.remove(slot)?),
            _ => owned(self.table.get(slot)?),
        };
        let stay = match (&before, transition) {
            (_, Transition::Added { lease, terms, .. }) => Some(StayRecord::new(*lease, *terms)),
            (None, _) => return Err(redb::Error::Corrupted(format!("no stay in slot {slot}"))),
            (Some(_), Transition::Removed { .. }) => None,
            (Some(row), _) => Some(
                StayRecord::decode(row.as_slice())
                    .map_err(|_| redb::Error::Corrupted(format!("the stay in slot {slot}")))?,
            ),
        };
        if let Some(mut stay) = stay {
            if let Transition::TakenOver { lease, terms, .. } = transition {
                stay = stay.under(*lease, *terms);
            }
            self.row.clear();
            put_stay(&stay, instance.unwrap_or(&stay.instance), &mut self.row);
            self.table.insert(slot, self.row.as_slice())?;
        }
        self.undo.stays.push((slot, before));
        Ok(())
    }
}

/// Puts the rows of the log, and takes out those that it no longer needs.
fn put_rows(
    mut table: Table<'_, u64, &'static [u8]>,
    rows: &Rows,
    revision: u64,
    backlog: &mut Backlog,
    undo: &mut Undo,
) -> Result<(), redb::Error> {
    for (first, row) in rows.iter() {
        let before = table.insert(first, row)?;
        undo.changes.push((first, owned(before)));
        backlog.push(first, row.len());
    }
    backlog.reach(revision);
    while let Some(oldest) = backlog.pop_excess() {
        undo.changes.push((oldest, owned(table.remove(oldest)?)));
    }
    Ok(())
}

/// Puts those of the numbers that there are.
pub(super) fn put_numbers(
    transaction: &WriteTransaction,
    numbers: [(&'static str, Option<u64>); 3],
    undo: &mut Undo,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(META)?;
    for (row, number) in numbers {
        let Some(number) = number else { continue };
        let before = table.insert(row, number.to_be_bytes().as_slice())?;
        undo.meta.push((row, owned(before)));
    }
    Ok(())
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
