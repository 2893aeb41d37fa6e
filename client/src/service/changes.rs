//! The stream of a service's views.

use std::sync::Arc;

use tokio::sync::watch;

use super::watched::WatchedService;
use crate::{endpoint::Snapshot, view::ViewProgress};

/// A stream of views of a service. Skips views that were replaced before the caller asked for them:
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

    /// Waits for the next view; the first call returns the present one. Returns `None` when there
    /// can't be another view: the service is a fixed one, or the runtime of the watch has ended.
    /// Cancel safe.
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
        let is_new = |progress: &ViewProgress| progress.views > seen || progress.ended;
        // Locked until the view is taken: it is the one that is counted.
        let progress = self.progress.wait_for(is_new).await.ok()?;
        if progress.views == seen {
            return None;
        }
        self.seen = progress.views;
        self.watched.published.snapshot().load_full()
    }
}
