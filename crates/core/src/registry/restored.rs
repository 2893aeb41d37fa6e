//! A registry from before, as a store kept it, and how it becomes one again.

use std::{collections::hash_map::Entry, sync::Arc};

use super::{
    lease::RestoredLease,
    log::ChangeLog,
    roster::{Member, Roster},
    state::{Registry, Service},
};
use crate::model::{Change, Limits, Revision, ServiceKey, Tick};

/// What was registered, and what changed last.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// The position in the history.
    pub revision: Revision,
    /// The identities in the order of their leases' slots.
    pub leases: Vec<RestoredLease>,
    /// The latest changes, one revision after the other up to the position.
    pub changes: Vec<Arc<Change>>,
}

impl RestoredState {
    /// The position before the first of the changes.
    fn floor(&self) -> Revision {
        Revision(self.revision.0 - self.changes.len() as u64)
    }
}

impl Registry {
    /// The registry as it was, with every lease renewed as of `now`, and its log. `server` and `seed`
    /// are as for [`Self::new`].
    pub fn restore(
        server: u8,
        seed: u64,
        limits: &Limits,
        restored: RestoredState,
        now: Tick,
    ) -> (Self, ChangeLog) {
        let mut registry = Self::new(server, seed, limits);
        let floor = restored.floor();
        registry.revision = restored.revision;
        let mut log = ChangeLog::new(floor, limits.log_changes_max, limits.log_bytes_max);
        for change in restored.changes {
            let service = registry.service_or_new(&change.instance.service, floor);
            let previous = std::mem::replace(&mut service.revision, change.revision());
            log.append(change, previous);
        }
        for lease in restored.leases {
            let (slot, instance) = (lease.lease.slot(), Arc::clone(&lease.instance));
            let service = registry.service_or_new(&instance.service, floor);
            service.roster.insert(Member { instance: Arc::clone(&instance), slot });
            registry.leases.restore(lease, now);
            registry.protection.restore(&instance, slot, now);
        }
        // What the log no longer tells of, nobody looks for.
        let floor = log.floor();
        registry.services.retain(|_, s| !s.roster.is_empty() || s.revision > floor);
        (registry, log)
    }

    /// A service whose last change, as far as the log does not know, may have been at its floor: no
    /// watch from before that may go on.
    fn service_or_new(&mut self, key: &Arc<ServiceKey>, floor: Revision) -> &mut Service {
        let service = match self.services.entry(Arc::clone(key)) {
            Entry::Occupied(service) => service.into_mut(),
            Entry::Vacant(place) => {
                let key = Arc::clone(key);
                let roster = Roster::default();
                place.insert(Arc::new(Service { key, roster, revision: floor }))
            }
        };
        Arc::make_mut(service)
    }
}
