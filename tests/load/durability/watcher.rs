//! A watcher that never starts over: it resumes from its cursor after each kill.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use tonic::transport::Channel;
use waypost_client::proto::{Cursor, WatchRequest, discovery_client::DiscoveryClient};
use waypost_testing::watch::Follower;

use crate::durability::{is_broken, view::View};

/// A watcher with its folded state and its cursor.
pub(crate) struct Watcher {
    request: WatchRequest,
    follower: Option<Follower>,
    /// All changes that it received.
    pub(crate) changes: u64,
}

impl Watcher {
    /// A watcher of services of a namespace; none: of all.
    pub(crate) fn new(namespace: &str, services: &[&str]) -> Self {
        let namespace = namespace.to_owned();
        let services = services.iter().map(|&service| service.to_owned()).collect();
        let request = WatchRequest { namespace, services, ..WatchRequest::default() };
        Self { request, follower: None, changes: 0 }
    }

    /// The cursor, if there is one.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.follower.as_ref().and_then(|follower| follower.cursor.as_ref())
    }

    /// Resumes, and compares the folded state with that of a registry without writers.
    pub(crate) async fn resume(&mut self, channel: Channel, view: &View) {
        let mut discovery = DiscoveryClient::new(channel);
        let before = self.follower.take();
        let resumed = before.is_some();
        let (resume, state) =
            before.map_or((None, BTreeMap::new()), |before| (before.cursor, before.state));
        let request = WatchRequest { resume, ..self.request.clone() };
        let mut follower = Follower::resume(&mut discovery, request, state).await;
        // An idle message comes even without changes.
        follower.message().await;
        follower.reach(view.cursor.revision).await;
        assert_eq!(follower.snapshots, usize::from(!resumed), "it went on with changes alone");
        assert_eq!(follower.cursor.as_ref(), Some(&view.cursor));
        let shown = view.within(&self.request.namespace, &self.request.services);
        assert_eq!(follower.state, shown, "folding gives the registry's state");
        self.count(&mut follower);
        self.follower = Some(follower);
    }

    /// Folds until the connection breaks, which nothing but the kill may do.
    pub(crate) async fn follow(&mut self, killed: &AtomicBool) {
        let mut follower = self.follower.take().expect("it is open");
        let snapshots = follower.snapshots;
        let status = loop {
            if let Err(status) = follower.try_message().await {
                break status;
            }
        };
        let ended = is_broken(&status) && killed.load(Ordering::Relaxed);
        assert!(ended, "it ended by itself: {status}");
        assert_eq!(follower.snapshots, snapshots, "it fell behind the log");
        self.count(&mut follower);
        self.follower = Some(follower);
    }

    fn count(&mut self, follower: &mut Follower) {
        self.changes += follower.changes.drain(..).count() as u64;
    }
}
