//! What is known of a service, where the task that watches shows it and others look. It must never
//! make anybody wait who only looks.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{freshness::Freshness, selected::Lens};
use crate::{
    balance::Selection,
    endpoint::{ServiceStats, Snapshot},
    registry::Refusal,
    runtime::clock::{self, Instant},
};

/// Where the task shows what it knows, and others look.
#[derive(Debug)]
pub(crate) struct Published {
    snapshot: ArcSwapOption<Snapshot>,
    /// Of handles that select nothing.
    plain: Arc<Lens>,
    /// Of those that do. Locked while a view is shown, so that a new one misses none.
    lenses: Mutex<Vec<Weak<Lens>>>,
    stats: Arc<ServiceStats>,
    progress: watch::Sender<Progress>,
    freshness: watch::Sender<Freshness>,
}

/// How far the task has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// How many views were shown.
    pub(crate) views: u64,
    /// Why there is no first view, where the registry refused one.
    pub(crate) refusal: Option<Refusal>,
    /// Whether there can't be another view.
    pub(crate) ended: bool,
}

impl Published {
    /// Nothing, as yet, of a service.
    pub(crate) fn of(stats: Arc<ServiceStats>) -> Self {
        Self {
            stats,
            snapshot: ArcSwapOption::empty(),
            plain: Arc::default(),
            lenses: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
            freshness: watch::Sender::new(Freshness::Stale { since: clock::now() }),
        }
    }

    pub(crate) fn fixed(snapshot: Snapshot) -> Self {
        let published = Self::of(Arc::clone(snapshot.stats()));
        published.publish(snapshot);
        published.confirm();
        published.end();
        published
    }

    pub(crate) fn stats(&self) -> &Arc<ServiceStats> {
        &self.stats
    }

    pub(crate) fn snapshot(&self) -> &ArcSwapOption<Snapshot> {
        &self.snapshot
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(crate) fn freshness(&self) -> watch::Receiver<Freshness> {
        self.freshness.subscribe()
    }

    /// The view is what the registry holds.
    pub(crate) fn confirm(&self) {
        if self.refresh(|freshness| freshness.stale_since().map(|_| Freshness::Live)) {
            self.stats.metrics().set_staleness(Duration::ZERO);
        }
    }

    /// The registry is not heard from now on.
    pub(crate) fn doubt(&self, now: Instant) {
        self.refresh(|freshness| match freshness {
            Freshness::Live => Some(Freshness::Stale { since: now }),
            Freshness::Stale { .. } => None,
        });
        if let Some(since) = self.freshness.borrow().stale_since() {
            self.stats.metrics().set_staleness(now - since);
        }
    }

    /// Whether that is news.
    fn refresh(&self, change: impl Fn(Freshness) -> Option<Freshness>) -> bool {
        // Looked at first, and let go of: each message confirms, and only the first one is news.
        let changed = change(*self.freshness.borrow());
        changed.is_some_and(|changed| {
            self.freshness.send_replace(changed);
            true
        })
    }

    /// What handles see that select nothing.
    pub(crate) fn plain(&self) -> &Arc<Lens> {
        &self.plain
    }

    /// What handles see that select so.
    pub(crate) fn select(&self, selection: Selection) -> Arc<Lens> {
        let lens = Arc::new(Lens::new(selection));
        // Nothing that is done under the lock panics.
        let mut lenses = self.lenses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = self.snapshot.load_full() {
            lens.candidates().store(Some(Arc::new(lens.select(&snapshot))));
        }
        lenses.retain(|lens| lens.strong_count() > 0);
        lenses.push(Arc::downgrade(&lens));
        lens
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        if !snapshot.is_empty() {
            self.stats.metrics().register();
        }
        let snapshot = Arc::new(snapshot);
        let lenses = self.lenses.lock().unwrap_or_else(PoisonError::into_inner);
        let live = lenses.iter().filter_map(Weak::upgrade).chain([Arc::clone(&self.plain)]);
        let selected: Vec<_> = live.map(|lens| (Arc::new(lens.select(&snapshot)), lens)).collect();
        // All with the progress locked: who has it locked finds the view that it counts.
        self.progress.send_modify(|progress| {
            self.snapshot.store(Some(snapshot));
            for (candidates, lens) in selected {
                lens.candidates().store(Some(candidates));
            }
            progress.views += 1;
            progress.refusal = None;
        });
    }

    /// Whether that is news.
    pub(crate) fn refuse(&self, refusal: Refusal) -> bool {
        self.progress.send_if_modified(|progress| {
            let news = progress.refusal.as_ref() != Some(&refusal);
            progress.refusal = Some(refusal);
            news
        })
    }

    pub(crate) fn end(&self) {
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
    fn a_count_of_views_goes_with_the_view_that_it_counts() {
        const VIEWS: u64 = 100_000;
        let published = Published::of(Arc::default());
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
    fn every_lens_has_the_latest_view() {
        let published = Published::of(Arc::default());
        let early = published.select(Selection::default());
        let serving = || {
            let lenses = [published.plain(), &early, &published.select(Selection::default())];
            lenses.map(|lens| lens.candidates().load().as_ref().map(|of| of.serving()))
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
        assert!(published.lenses.lock().unwrap().len() < 4, "those that are gone are forgotten");
    }

    #[test]
    fn the_same_refusal_is_news_once() {
        let Retryability::Fatal(refusal) = Retryability::of(&Status::invalid_argument("no")) else {
            unreachable!()
        };
        let published = Published::of(Arc::default());
        assert!(published.refuse(refusal.clone()));
        assert!(!published.refuse(refusal.clone()));
        published.publish(view(1));
        assert!(published.refuse(refusal));
    }
}
