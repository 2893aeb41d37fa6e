//! The state of the registry, and its readers.
//!
//! Pure.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use super::{
    instance_counts::InstanceCounts,
    lease::{Due, LeaseSeed, LeaseTable, Leases, ServiceNumber},
    protection::{ProtectedNamespace, Protection},
    roster::Roster,
};
use crate::model::{
    Instance, InstanceId, LeaseId, Limits, Name, Revision, ServiceKey, Tick, WallTime,
};

/// The time of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic time, by which leases expire.
    pub tick: Tick,
    /// The wall clock, for display.
    pub wall: WallTime,
}

/// A service with its instances at one revision; cheap to share.
#[derive(Debug, Clone)]
pub struct Service {
    /// The namespace and name.
    pub key: Arc<ServiceKey>,
    /// The instances.
    pub roster: Roster,
    /// The revision of the last change to one of them.
    pub revision: Revision,
    /// The number that the lease table has for it.
    pub number: ServiceNumber,
}

/// The instances of all services, and their leases.
#[derive(Debug)]
pub struct Registry {
    /// Includes services without instances while the log may hold their last removal.
    pub(super) services: HashMap<Arc<ServiceKey>, Arc<Service>>,
    /// The number of the service that was added last.
    latest_number: ServiceNumber,
    pub(super) counts: InstanceCounts,
    pub(super) leases: Leases,
    pub(super) protection: Protection,
    pub(super) revision: Revision,
    pub(super) instances_max: usize,
    pub(super) hold_max: Duration,
}

impl Registry {
    /// Makes an empty registry. `server`, the number of this server, and `seed` go into the lease
    /// ids.
    pub fn new(server: u8, seed: LeaseSeed, limits: &Limits) -> Self {
        Self {
            services: HashMap::new(),
            latest_number: ServiceNumber::default(),
            counts: InstanceCounts::default(),
            leases: Leases::new(server, seed, limits.protection_hold_max),
            protection: Protection::default(),
            revision: Revision::default(),
            instances_max: limits.instances_max.min(LeaseId::SLOTS),
            hold_max: limits.protection_hold_max,
        }
    }

    /// Returns the lease table, through which any thread renews leases.
    pub fn lease_table(&self) -> Arc<LeaseTable> {
        self.leases.table()
    }

    /// Returns the revision of the latest change.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the number of instances.
    pub fn instances(&self) -> usize {
        self.leases.active()
    }

    /// Returns the number of instances of a namespace.
    pub fn instances_in(&self, namespace: &Name) -> usize {
        self.counts.of(namespace)
    }

    /// Returns a service; it may have no instances.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// Returns all services, including those without instances.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Returns the lease and the instance of an identity.
    pub fn lease(&self, key: &ServiceKey, id: &InstanceId) -> Option<(LeaseId, &Arc<Instance>)> {
        let member = self.services.get(key)?.roster.member(id)?;
        Some((self.leases.lease_in(member.slot)?, &member.instance))
    }

    /// Advances the expiry wheel to `now`. Takes the leases that expired, by their TTL or by the
    /// grace after a broken stream, which can't be renewed from here on; and the held leases that
    /// were renewed. Checks `visits_max` leases at most; `true` means that more are due.
    ///
    /// Each must then go into a plan as [`Command::Enforce`](super::Command::Enforce) that is
    /// absorbed, or back through [`Self::reinstate`].
    pub fn take_due(&mut self, now: Tick, visits_max: usize) -> (Vec<Due>, bool) {
        self.leases.take_due(now, visits_max)
    }

    /// Returns the namespaces in which expired leases are held, ordered by name.
    pub fn protected(&self) -> Vec<ProtectedNamespace> {
        self.protection.protected(self.hold_max)
    }

    /// Records that the server did not run between two ticks, the second of which may lie a little
    /// ahead. This time counts against no lease, whether it was renewed before or within it.
    pub fn record_stall(&mut self, from: Tick, until: Tick) {
        self.leases.record_stall(from, until);
    }

    /// Takes back due leases whose transitions could not be committed: expired ones can be renewed
    /// again, and are due again at once unless they are.
    pub fn reinstate(&mut self, due_leases: &[Due], now: Tick) {
        for due in due_leases {
            self.leases.reinstate(*due, now);
        }
    }

    /// Returns the service, or a new one, whose last change has the given revision.
    pub(super) fn service_or_new(
        &mut self,
        key: &Arc<ServiceKey>,
        revision: Revision,
    ) -> &mut Service {
        let service = match self.services.entry(Arc::clone(key)) {
            Entry::Occupied(service) => service.into_mut(),
            Entry::Vacant(entry) => {
                self.latest_number = self.latest_number.next();
                entry.insert(Arc::new(Service {
                    key: Arc::clone(key),
                    roster: Roster::default(),
                    revision,
                    number: self.latest_number,
                }))
            }
        };
        Arc::make_mut(service)
    }

    /// Drops a service without instances once the log has evicted its last change. Returns whether
    /// it did.
    pub fn forget(&mut self, key: &ServiceKey, evicted: Revision) -> bool {
        let ended = self
            .services
            .get(key)
            .is_some_and(|service| service.roster.is_empty() && service.revision <= evicted);
        if ended {
            self.services.remove(key);
        }
        ended
    }
}
