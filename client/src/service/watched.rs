//! The services that a client watches. All handles to one service share one watch, which ends with
//! the last of them.

use std::sync::{Arc, Weak};

use dashmap::DashMap;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    endpoint::{ServiceStats, Snapshot},
    runtime::tasks,
    transport::Dialer,
    view::{PublishedView, Watcher},
};

/// The services that the client has handles to.
#[derive(Debug, Default)]
pub(crate) struct WatchedServices {
    watched: DashMap<String, Weak<WatchedService>>,
}

/// One service and the watch that feeds its view.
#[derive(Debug)]
pub(crate) struct WatchedService {
    pub(super) name: String,
    pub(super) published: Arc<PublishedView>,
    pub(super) dialer: Dialer,
    /// The map from which it is removed at the end.
    services: Weak<WatchedServices>,
    /// Stops the watch with the last handle.
    _stop: Option<DropGuard>,
}

impl WatchedServices {
    /// Returns the service `name`. Starts its watch if it has none.
    pub(crate) fn watch(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        dialer: &Dialer,
        watcher: impl FnOnce(Arc<PublishedView>, CancellationToken) -> Watcher,
    ) -> Arc<WatchedService> {
        if let Some(watched) = self.find(name) {
            return watched;
        }
        let published = Arc::new(PublishedView::new(Arc::new(ServiceStats::new(namespace, name))));
        let stop = CancellationToken::new();
        let created = Arc::new(WatchedService {
            name: name.to_owned(),
            published: Arc::clone(&published),
            dialer: dialer.clone(),
            services: Arc::downgrade(self),
            _stop: Some(stop.clone().drop_guard()),
        });
        let watched = self.insert(&created);
        if Arc::ptr_eq(&watched, &created) {
            tasks::spawn("watch", watcher(published, stop).run());
        }
        watched
    }

    #[expect(clippy::disallowed_methods, reason = "the guard is held while a handle is cloned")]
    fn find(&self, name: &str) -> Option<Arc<WatchedService>> {
        let watched = self.watched.get(name).and_then(|watched| watched.upgrade());
        watched.filter(|watched| watched.is_current())
    }

    /// Inserts `created`, unless its service is watched already. Returns the service that is
    /// watched.
    #[expect(clippy::disallowed_methods, reason = "the guard is held while handles are compared")]
    fn insert(&self, created: &Arc<WatchedService>) -> Arc<WatchedService> {
        // Dropped after the entry: the drop of the last handle locks the map.
        let present;
        let mut entry = self.watched.entry(created.name.clone()).or_default();
        present = entry.upgrade();
        match &present {
            Some(present) if present.is_current() => Arc::clone(present),
            _ => {
                *entry = Arc::downgrade(created);
                Arc::clone(created)
            }
        }
    }
}

impl WatchedService {
    /// Creates a service with one view and no watch.
    pub(super) fn fixed(snapshot: Snapshot) -> Arc<Self> {
        let name = snapshot.instances().next().map(|instance| instance.service.clone());
        Arc::new(Self {
            name: name.unwrap_or_default(),
            published: Arc::new(PublishedView::fixed(snapshot)),
            dialer: Dialer::default(),
            services: Weak::new(),
            _stop: None,
        })
    }

    /// Returns false if its watch ended with the runtime that it ran in: it starts again in another
    /// one.
    fn is_current(&self) -> bool {
        !self.published.has_ended()
    }
}

impl Drop for WatchedService {
    #[expect(clippy::disallowed_methods, reason = "the guard is held while handles are counted")]
    fn drop(&mut self) {
        if let Some(services) = self.services.upgrade() {
            // Another handle may have started another watch of the same name meanwhile.
            services.watched.remove_if(&self.name, |_, watched| watched.strong_count() == 0);
        }
    }
}
