//! How much of the change log is kept, under limits that change from one start to the next.

use std::sync::Arc;

use prost::Message;
use tempfile::TempDir;

use super::{Work, limits, seeds};
use crate::{
    model::{Change, ChangeKind, Limits},
    store::{
        DiskStore,
        record::{ChangeRecord, encode_instance},
    },
};

fn bytes<'a>(changes: impl IntoIterator<Item = &'a Arc<Change>>) -> usize {
    let bytes = |change: &Arc<Change>| {
        let before = match &change.kind {
            ChangeKind::Updated { before, .. } => encode_instance(before),
            _ => Vec::new(),
        };
        let instance = encode_instance(&change.instance);
        ChangeRecord::new(&change.kind, instance, before).encoded_len()
    };
    changes.into_iter().map(bytes).sum()
}

/// Opens a directory under some limits and makes a few changes there.
async fn work_on(directory: &TempDir, limits: &Limits, work: &mut Work, changes: usize) {
    let (mut store, loaded) = DiskStore::open(directory.path(), limits).unwrap();
    assert_eq!(loaded.restored.revision, work.registry.revision());
    let end = work.changes.len() + changes;
    while work.changes.len() < end {
        work.turn(&mut store).await.unwrap();
    }
}

/// The changes that are kept: the latest ones, without a gap.
fn kept_changes(directory: &TempDir, limits: &Limits, work: &Work) -> Vec<Arc<Change>> {
    let (_, loaded) = DiskStore::open(directory.path(), limits).unwrap();
    assert_eq!(loaded.restored.stays.len(), work.registry.instances());
    let kept = loaded.restored.changes;
    assert_eq!(kept, work.changes[work.changes.len() - kept.len()..]);
    kept
}

/// A registry with many changes in a directory.
async fn begin(directory: &TempDir, limits: &Limits, seed: u64) -> Work {
    println!("WAYPOST_SEED={seed}");
    let (_, loaded) = DiskStore::open(directory.path(), limits).unwrap();
    let mut work = Work::begin(loaded, seed);
    work_on(directory, limits, &mut work, 150).await;
    work
}

#[tokio::test]
async fn a_lower_count_of_changes_holds_from_the_next_ones_on() {
    for seed in seeds(3) {
        let directory = TempDir::new().unwrap();
        let many = limits();
        let few = Limits { log_changes_max: 10, ..limits() };
        let mut work = begin(&directory, &many, seed).await;
        assert_eq!(kept_changes(&directory, &many, &work).len(), many.log_changes_max);
        work_on(&directory, &few, &mut work, 1).await;
        assert_eq!(kept_changes(&directory, &few, &work).len(), 10);
        work_on(&directory, &few, &mut work, 50).await;
        assert_eq!(kept_changes(&directory, &few, &work).len(), 10);

        let before = work.changes.len();
        work_on(&directory, &many, &mut work, 20).await;
        let made = work.changes.len() - before;
        assert_eq!(kept_changes(&directory, &many, &work).len(), 10 + made);
        work_on(&directory, &many, &mut work, 100).await;
        assert_eq!(kept_changes(&directory, &many, &work).len(), many.log_changes_max);
    }
}

#[tokio::test]
async fn a_lower_size_of_the_log_holds_from_the_next_changes_on() {
    for seed in seeds(3) {
        let directory = TempDir::new().unwrap();
        let much = limits();
        let mut work = begin(&directory, &much, seed).await;
        let all = bytes(&kept_changes(&directory, &much, &work));
        for max in [all / 2, all / 10, 1] {
            let little = Limits { log_bytes_max: max, ..limits() };
            work_on(&directory, &little, &mut work, 1).await;
            let kept = kept_changes(&directory, &little, &work);
            assert!(bytes(&kept) <= max);
            // One more would have been too much.
            let one_more = work.changes.iter().rev().take(kept.len() + 1);
            assert!(bytes(one_more) > max, "{} kept", kept.len());
        }
        let before = work.changes.len();
        work_on(&directory, &much, &mut work, 20).await;
        let made = work.changes.len() - before;
        assert_eq!(kept_changes(&directory, &much, &work).len(), made);
    }
}
