//! Tests of the stored log under limits that change between two starts.

use std::sync::Arc;

use tempfile::TempDir;

use super::{Workload, limits, seeds};
use crate::{
    model::{Change, ChangeKind, Limits},
    store::{
        DiskStore,
        record::{ChangeRecordRef, put_instance},
    },
};

/// Returns the largest size of changes on disk: the first one of a row takes a little less.
fn bytes<'a>(changes: impl IntoIterator<Item = &'a Arc<Change>>) -> usize {
    let bytes = |change: &Arc<Change>| {
        let (mut instance, mut before) = (Vec::new(), Vec::new());
        put_instance(&change.instance, &mut instance);
        if let ChangeKind::Updated { before: it, .. } = &change.kind {
            put_instance(it, &mut before);
        }
        ChangeRecordRef::new(&change.kind, &instance, &before).next_len()
    };
    changes.into_iter().map(bytes).sum()
}

/// Opens a directory under these limits and commits a number of changes.
async fn work_on(directory: &TempDir, limits: &Limits, work: &mut Workload, changes: usize) {
    let (mut store, loaded) = DiskStore::open(directory.path(), limits).unwrap();
    assert_eq!(loaded.restored.revision, work.registry.revision());
    let end = work.changes.len() + changes;
    while work.changes.len() < end {
        work.turn(&mut store).await.unwrap();
    }
}

/// Returns the stored changes, after checking that they are the latest ones without a gap.
fn kept_changes(directory: &TempDir, limits: &Limits, work: &Workload) -> Vec<Arc<Change>> {
    let (_, loaded) = DiskStore::open(directory.path(), limits).unwrap();
    assert_eq!(loaded.restored.leases.len(), work.registry.instances());
    let kept = loaded.restored.changes;
    assert_eq!(kept, work.changes[work.changes.len() - kept.len()..]);
    kept
}

/// Starts a registry with many changes in a directory.
async fn begin(directory: &TempDir, limits: &Limits, seed: u64) -> Workload {
    println!("WAYPOST_SEED={seed}");
    let (_, loaded) = DiskStore::open(directory.path(), limits).unwrap();
    let mut work = Workload::start(loaded, seed);
    work_on(directory, limits, &mut work, 150).await;
    work
}

/// Counts the stored changes, after checking them against the limits.
fn count(directory: &TempDir, limits: &Limits, work: &Workload) -> usize {
    let kept = kept_changes(directory, limits, work).len();
    assert!(work.may_keep(kept, limits.log_changes_max), "{kept} kept");
    kept
}

#[tokio::test]
async fn lower_count_applies_from_the_next_change_on() {
    for seed in seeds(3) {
        let directory = TempDir::new().unwrap();
        let many = limits();
        let few = Limits { log_changes_max: 10, ..limits() };
        let mut work = begin(&directory, &many, seed).await;
        count(&directory, &many, &work);
        work_on(&directory, &few, &mut work, 1).await;
        count(&directory, &few, &work);
        work_on(&directory, &few, &mut work, 50).await;
        let kept = count(&directory, &few, &work);

        let before = work.changes.len();
        work_on(&directory, &many, &mut work, 20).await;
        let made = work.changes.len() - before;
        assert_eq!(kept_changes(&directory, &many, &work).len(), kept + made);
        work_on(&directory, &many, &mut work, 100).await;
        count(&directory, &many, &work);
    }
}

#[tokio::test]
async fn lower_size_applies_from_the_next_change_on() {
    for seed in seeds(3) {
        let directory = TempDir::new().unwrap();
        let much = limits();
        let mut work = begin(&directory, &much, seed).await;
        let all = bytes(&kept_changes(&directory, &much, &work));
        let mut kept = 0;
        for max in [all / 2, all / 10, 1] {
            let little = Limits { log_bytes_max: max, ..limits() };
            work_on(&directory, &little, &mut work, 1).await;
            kept = kept_changes(&directory, &little, &work).len();
            let needed = (0..).take_while(|count| bytes(work.latest(*count)) <= max).last();
            // One more fits if the first changes of rows, a little smaller, make the difference;
            // and a change that does not fit keeps its row as well.
            let mut needed = (0..=2).map(|more| needed.unwrap() + more);
            assert!(needed.any(|needed| work.may_keep(kept, needed)), "{kept} kept");
        }
        let before = work.changes.len();
        work_on(&directory, &much, &mut work, 20).await;
        let made = work.changes.len() - before;
        assert_eq!(kept_changes(&directory, &much, &work).len(), kept + made);
    }
}
