//! Restores a registry from the contents of a store.
//!
//! Pure.

use std::sync::Arc;

use super::{
    lease::{LeaseSeed, RestoredLease},
    log::ChangeLog,
    roster::Member,
    state::Registry,
};
use crate::model::{Change, Limits, Revision, Tick};

/// The contents of a store.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// The revision of the latest change.
    pub revision: Revision,
    /// The leases with their instances, in the order of their slots.
    pub leases: Vec<RestoredLease>,
    /// The latest changes, without gaps up to the revision.
    pub changes: Vec<Arc<Change>>,
}

impl RestoredState {
    /// Returns the revision before the first of the changes.
    fn floor(&self) -> Revision {
        Revision(self.revision.0 - self.changes.len() as u64)
    }
}

impl Registry {
    /// Restores the registry, with every lease renewed as of `now`, and its log. `server` and
    /// `seed` are as for [`Self::new`].
    pub fn restore(
        server: u8,
        seed: LeaseSeed,
        limits: &Limits,
        restored: RestoredState,
        now: Tick,
    ) -> (Self, ChangeLog) {
        let mut registry = Self::new(server, seed, limits);
        // The last change of a new service may be as late as the floor of the log, so that no watch
        // from before the floor continues.
        let floor = restored.floor();
        registry.revision = restored.revision;
        let mut log = ChangeLog::new(floor, limits.log_changes_max, limits.log_bytes_max);
        for change in restored.changes {
            let service = registry.service_or_new(&change.instance.service, floor);
            let previous = std::mem::replace(&mut service.revision, change.revision());
            log.append(change, previous);
        }
        for restored in restored.leases {
            let (slot, instance) = (restored.lease.slot(), Arc::clone(&restored.instance));
            let service = registry.service_or_new(&instance.service, floor);
            service.roster.insert(Member { instance: Arc::clone(&instance), slot });
            let number = service.number;
            registry.counts.add(&instance.service.namespace);
            registry.leases.restore(restored, number, now);
            registry.protection.restore(&instance, slot, now);
        }
        // A service without instances is kept only while the log holds its last change.
        let floor = log.floor();
        registry.services.retain(|_, s| !s.roster.is_empty() || s.revision > floor);
        (registry, log)
    }
}
