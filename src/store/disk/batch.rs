//! Writes one batch to the tables, and reverts it.

use std::ops::{Bound, Range, RangeInclusive};

use prost::Message;
use redb::{AccessGuard, ReadableTable, Table, WriteTransaction};

use super::{
    log_rows::LogRows,
    stored_log::StoredLog,
    tables::{CHANGES, LEASES, META},
};
use crate::{
    registry::Transition,
    store::record::{LeaseRecord, put_lease},
};

/// Writes the leases and changes of transitions. Returns the latest revision among them.
pub(super) fn put(
    transaction: &WriteTransaction,
    transitions: &[Transition],
    stored_log: &mut StoredLog,
    undo: &mut Undo,
) -> Result<Option<u64>, redb::Error> {
    let (mut rows, mut revision) = (LogRows::default(), None);
    let mut steps = Vec::with_capacity(transitions.len());
    for transition in transitions {
        let instance = transition.change().map(|change| {
            revision = Some(change.revision().0);
            rows.push(&change)
        });
        steps.push(SlotWrite { slot: transition.slot(), transition, instance });
    }
    // In page order; a stable sort keeps the order in each slot.
    steps.sort_by_key(|step| step.slot);
    let row = Vec::new();
    let mut leases = LeaseRows { table: transaction.open_table(LEASES)?, rows: &rows, undo, row };
    for run in steps.chunk_by(SlotWrite::is_followed_by) {
        leases.put_run(run)?;
    }
    drop(leases);
    if let Some(revision) = revision {
        put_rows(transaction.open_table(CHANGES)?, &rows, revision, stored_log, undo)?;
    }
    Ok(revision)
}

/// The write of a transition to its slot.
struct SlotWrite<'a> {
    slot: u32,
    transition: &'a Transition,
    /// The range of the new instance in the log's rows; `None` keeps the stored one.
    instance: Option<Range<usize>>,
}

impl SlotWrite<'_> {
    /// Returns whether both do the same in adjacent slots, so that one operation can do both.
    fn is_followed_by(&self, next: &Self) -> bool {
        let same = matches!(
            (self.transition, next.transition),
            (Transition::Added { .. }, Transition::Added { .. })
                | (Transition::Removed { .. }, Transition::Removed { .. })
        );
        same && self.slot.checked_add(1) == Some(next.slot)
    }
}

struct LeaseRows<'a> {
    table: Table<'a, u32, &'static [u8]>,
    rows: &'a LogRows,
    undo: &'a mut Undo,
    /// The buffer of an encoded row.
    row: Vec<u8>,
}

impl LeaseRows<'_> {
    fn put_run(&mut self, run: &[SlotWrite<'_>]) -> Result<(), redb::Error> {
        match run {
            [] => Ok(()),
            [step] => self.put(step),
            [first, .., last] => match first.transition {
                Transition::Removed { .. } => self.remove(first.slot..=last.slot, run.len()),
                _ => self.add(first.slot, run),
            },
        }
    }

    /// Adds leases in consecutive empty slots.
    fn add(&mut self, first: u32, run: &[SlotWrite<'_>]) -> Result<(), redb::Error> {
        let mut cursor = self.table.lower_bound_mut(Bound::Included(first))?;
        for step in run {
            encode(step, None, self.rows, &mut self.row)?;
            cursor.insert_before(step.slot, self.row.as_slice())?;
            self.undo.leases.push((step.slot, None));
        }
        Ok(cursor.close()?)
    }

    /// Removes leases from consecutive slots.
    fn remove(&mut self, slots: RangeInclusive<u32>, count: usize) -> Result<(), redb::Error> {
        let (first, undo) = (*slots.start(), &mut self.undo.leases);
        let before = undo.len();
        self.table.retain_in(slots, |slot, row| {
            undo.push((slot, Some(row.to_vec())));
            false
        })?;
        if undo.len() - before < count { Err(no_lease(first)) } else { Ok(()) }
    }

    /// Writes the result of one transition to its slot.
    fn put(&mut self, step: &SlotWrite<'_>) -> Result<(), redb::Error> {
        let slot = step.slot;
        let before = match step.transition {
            Transition::Added { .. } => None,
            Transition::Removed { .. } => {
                let before = owned(self.table.remove(slot)?);
                self.undo.leases.push((slot, Some(before.ok_or_else(|| no_lease(slot))?)));
                return Ok(());
            }
            _ => owned(self.table.get(slot)?),
        };
        encode(step, before.as_deref(), self.rows, &mut self.row)?;
        let replaced = self.table.insert(slot, self.row.as_slice())?.is_some();
        if replaced != before.is_some() {
            return Err(redb::Error::Corrupted(format!("unexpected lease in slot {slot}")));
        }
        self.undo.leases.push((slot, before));
        Ok(())
    }
}

/// Encodes the lease that a transition leaves in its slot.
fn encode(
    step: &SlotWrite<'_>,
    before: Option<&[u8]>,
    rows: &LogRows,
    row: &mut Vec<u8>,
) -> Result<(), redb::Error> {
    let record = match (step.transition, before) {
        (Transition::Added { lease, terms, .. }, _) => LeaseRecord::new(*lease, *terms),
        (transition, Some(before)) => {
            let record = LeaseRecord::decode(before).map_err(|_| no_lease(step.slot))?;
            match transition {
                Transition::TakenOver { lease, terms, .. } => record.under(*lease, *terms),
                _ => record,
            }
        }
        (_, None) => return Err(no_lease(step.slot)),
    };
    let instance = step.instance.clone().map(|place| rows.instance(place));
    row.clear();
    put_lease(&record, instance.unwrap_or(&record.instance), row);
    Ok(())
}

fn no_lease(slot: u32) -> redb::Error {
    redb::Error::Corrupted(format!("no lease in slot {slot}"))
}

/// Appends rows to the log, and removes those that exceed the limits.
fn put_rows(
    mut table: Table<'_, u64, &'static [u8]>,
    rows: &LogRows,
    revision: u64,
    stored_log: &mut StoredLog,
    undo: &mut Undo,
) -> Result<(), redb::Error> {
    for (first, row) in rows.iter() {
        let before = table.insert(first, row)?;
        undo.changes.push((first, owned(before)));
        stored_log.push(first, row.len());
    }
    stored_log.set_latest(revision);
    while let Some(oldest) = stored_log.pop_excess() {
        undo.changes.push((oldest, owned(table.remove(oldest)?)));
    }
    Ok(())
}

/// Writes the given numbers to `META`.
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

/// The previous values of all rows that a batch wrote, one entry a write.
#[derive(Debug, Default)]
pub(super) struct Undo {
    leases: Vec<(u32, Option<Vec<u8>>)>,
    changes: Vec<(u64, Option<Vec<u8>>)>,
    meta: Vec<(&'static str, Option<Vec<u8>>)>,
}

impl Undo {
    pub(super) fn apply(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        put_back(&mut transaction.open_table(LEASES)?, &self.leases)?;
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
    // In reverse: the value before the batch is written last.
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
