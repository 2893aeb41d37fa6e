//! The latest view of a service, which the watch publishes and others read. Readers never wait for
//! the writer.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{freshness::Freshness, selected::SelectedView};
use crate::{
    balance::Selection,
    endpoint::{ServiceStats, Snapshot},
    registry::Refusal,
    runtime::clock::{self, Instant},
};

/// The latest view, its freshness, and the progress of the watch.
#[derive(Debug)]
pub(crate) struct PublishedView {
    snapshot: ArcSwapOption<Snapshot>,
    /// The view of handles without a selection.
    unfiltered: Arc<SelectedView>,
    /// The views of handles with a selection. Locked while a view is published, so that a new
    /// selection misses none.
    selections: Mutex<Vec<Weak<SelectedView>>>,
    stats: Arc<ServiceStats>,
    progress: watch::Sender<ViewProgress>,
    freshness: watch::Sender<Freshness>,
}

/// The progress of a watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct ViewProgress {
    /// The views published so far.
    pub(crate) views: u64,
    /// The reason for which there is no first view, if the registry refused it.
    pub(crate) refusal: Option<Refusal>,
    /// True if there can't be another view.
    pub(crate) ended: bool,
}

impl PublishedView {
    /// Starts without a view.
    pub(crate) fn new(stats: Arc<ServiceStats>) -> Self {
        Self {
            stats,
            snapshot: ArcSwapOption::empty(),
            unfiltered: Arc::default(),
            selections: Mutex::default(),
            progress: watch::Sender::new(ViewProgress::default()),
            freshness: watch::Sender::new(Freshness::Stale { since: clock::now() }),
        }
    }

    pub(crate) fn fixed(snapshot: Snapshot) -> Self {
        let published = Self::new(Arc::clone(snapshot.stats()));
        published.publish(snapshot);
        published.mark_fresh();
        published.close();
        published
    }

    pub(crate) fn stats(&self) -> &Arc<ServiceStats> {
        &self.stats
    }

    pub(crate) fn snapshot(&self) -> &ArcSwapOption<Snapshot> {
        &self.snapshot
    }

    pub(crate) fn progress(&self) -> watch::Receiver<ViewProgress> {
        self.progress.subscribe()
    }

    pub(crate) fn freshness(&self) -> watch::Receiver<Freshness> {
        self.freshness.subscribe()
    }

    /// The view is what the registry holds.
    pub(crate) fn mark_fresh(&self) {
        if self.set_freshness(|freshness| freshness.stale_since().map(|_| Freshness::Live)) {
            self.stats.metrics().set_staleness(Duration::ZERO);
        }
    }

    /// The registry is unreachable from now on.
    pub(crate) fn mark_stale(&self, now: Instant) {
        self.set_freshness(|freshness| match freshness {
            Freshness::Live => Some(Freshness::Stale { since: now }),
            Freshness::Stale { .. } => None,
        });
        if let Some(since) = self.freshness.borrow().stale_since() {
            self.stats.metrics().set_staleness(now - since);
        }
    }

    /// Returns whether it changed.
    fn set_freshness(&self, change: impl Fn(Freshness) -> Option<Freshness>) -> bool {
        // Read first: each message marks the view fresh, and only the first one changes anything.
        let changed = change(*self.freshness.borrow());
        changed.is_some_and(|changed| {
            self.freshness.send_replace(changed);
            true
        })
    }

    /// The view of handles without a selection.
    pub(crate) fn unfiltered(&self) -> &Arc<SelectedView> {
        &self.unfiltered
    }

    /// The view of handles with this selection.
    pub(crate) fn select(&self, selection: Selection) -> Arc<SelectedView> {
        let selected = Arc::new(SelectedView::new(selection));
        // No code under the lock panics.
        let mut selections = self.selections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = self.snapshot.load_full() {
            selected.candidates().store(Some(Arc::new(selected.select(&snapshot))));
        }
        selections.retain(|selected| selected.strong_count() > 0);
        selections.push(Arc::downgrade(&selected));
        selected
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        if !snapshot.is_empty() {
            self.stats.metrics().register();
        }
        let snapshot = Arc::new(snapshot);
        let selections = self.selections.lock().unwrap_or_else(PoisonError::into_inner);
        let live =
            selections.iter().filter_map(Weak::upgrade).chain([Arc::clone(&self.unfiltered)]);
        let selected: Vec<_> =
            live.map(|selected| (Arc::new(selected.select(&snapshot)), selected)).collect();
        // All with the progress locked: a reader that holds it finds the view that it counts.
        self.progress.send_modify(|progress| {
            self.snapshot.store(Some(snapshot));
            for (candidates, selected) in selected {
                selected.candidates().store(Some(candidates));
            }
            progress.views += 1;
            progress.refusal = None;
        });
    }

    /// Returns whether it changed.
    pub(crate) fn set_refusal(&self, refusal: Refusal) -> bool {
        self.progress.send_if_modified(|progress| {
            let changed = progress.refusal.as_ref() != Some(&refusal);
            progress.refusal = Some(refusal);
            changed
        })
    }

    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.progress.borrow().ended
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;
    use crate::{
        proto::{Instance, Status as InstanceStatus},
        registry::Retryability,
    };

    fn view(revision: u64) -> Snapshot {
        let cursor = crate::proto::Cursor { history_id: "h".into(), revision };
        Snapshot::sorted(Box::new([]), cursor, Arc::default())
    }

    #[test]
    fn the_count_of_views_matches_the_latest_view() {
        const VIEWS: u64 = 100_000;
        let published = PublishedView::new(Arc::default());
        let progress = published.progress();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=VIEWS).for_each(|revision| published.publish(view(revision))));
            loop {
                let progress = progress.borrow();
                let snapshot = published.snapshot().load();
                let revision = snapshot.as_ref().map_or(0, |snapshot| snapshot.cursor().revision);
                assert_eq!(progress.views, revision);
                if revision == VIEWS {
                    return;
                }
            }
        });
    }

    #[test]
    fn every_selection_has_the_latest_view() {
        let published = PublishedView::new(Arc::default());
        let early = published.select(Selection::default());
        let serving = || {
            let selections =
                [published.unfiltered(), &early, &published.select(Selection::default())];
            selections.map(|selected| selected.candidates().load().as_ref().map(|of| of.serving()))
        };
        assert_eq!(serving(), [None; 3]);
        for count in [3, 1] {
            let up = |id: usize| Instance {
                id: id.to_string(),
                status: InstanceStatus::Up.into(),
                ..Instance::default()
            };
            published.publish(Snapshot::new((0..count).map(up)));
            assert_eq!(serving(), [Some(count); 3]);
        }
        assert!(published.selections.lock().unwrap().len() < 4, "dropped ones are removed");
    }

    #[test]
    fn the_same_refusal_changes_the_progress_once() {
        let Retryability::Fatal(refusal) = Retryability::of(&Status::invalid_argument("no")) else {
            unreachable!()
        };
        let published = PublishedView::new(Arc::default());
        assert!(published.set_refusal(refusal.clone()));
        assert!(!published.set_refusal(refusal.clone()));
        published.publish(view(1));
        assert!(published.set_refusal(refusal));
    }
}
