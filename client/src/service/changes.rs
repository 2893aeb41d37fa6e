//! The views of a service, one after the other.

use std::sync::Arc;

use tokio::sync::watch;

use super::watched::WatchedService;
use crate::{endpoint::Snapshot, view::ViewProgress};

/// The views of a service, one after the other. Views that nobody asked for meanwhile are left out:
/// the next one is always the latest.
///
/// ```
/// use waypost_client::{Instance, Service};
///
/// # #[tokio::main]
/// # async fn main() {
/// let mut changes = Service::fixed([Instance::default()]).changes();
/// let first = changes.next().await.expect("the present view");
/// assert_eq!(first.len(), 1);
/// assert!(changes.next().await.is_none(), "a fixed service has no other");
/// # }
/// ```
#[derive(Debug)]
pub struct Changes {
    progress: watch::Receiver<ViewProgress>,
    /// Keeps the watch alive.
    watched: Arc<WatchedService>,
    seen: u64,
}

impl Changes {
    pub(super) fn new(watched: &Arc<WatchedService>) -> Self {
        Self { progress: watched.published.progress(), watched: Arc::clone(watched), seen: 0 }
    }

    /// The view, once it is another than the last one that this gave; the first time the present
    /// one. `None` when there can't be another one any more: the service is a fixed one, or the runtime
    /// of the watch has ended. Cancel safe.
    ///
    /// ```
    /// # use waypost_client::Service;
    /// # #[tokio::main]
    /// # async fn main() {
    /// let mut changes = Service::fixed([]).changes();
    /// assert!(changes.next().await.is_some());
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Arc<Snapshot>> {
        let seen = self.seen;
        let news = |progress: &ViewProgress| progress.views > seen || progress.ended;
        // Locked until the view is taken: it is the one that is counted.
        let progress = self.progress.wait_for(news).await.ok()?;
        if progress.views == seen {
            return None;
        }
        self.seen = progress.views;
        self.watched.published.snapshot().load_full()
    }
}
