//! The registry's state.
//!
//! Pure.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    lease::{Due, LeaseTable, Leases},
    protection::{ProtectedNamespace, Protection},
    roster::Roster,
};
use crate::model::{Instance, InstanceId, LeaseId, Limits, Revision, ServiceKey, Tick, WallTime};

/// The time at which a plan is made.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What leases count by.
    pub tick: Tick,
    /// What people read.
    pub wall: WallTime,
}

/// A service with its instances at one position of the history; cheap to share.
#[derive(Debug, Clone)]
pub struct Service {
    /// The service's name.
    pub key: Arc<ServiceKey>,
    /// Its instances.
    pub roster: Roster,
    /// The revision of the last change to any of them.
    pub revision: Revision,
}

/// Everything that is registered.
#[derive(Debug)]
pub struct Registry {
    /// Also services whose last instance is gone, for as long as the log may hold its removal.
    pub(super) services: HashMap<Arc<ServiceKey>, Arc<Service>>,
    pub(super) leases: Leases,
    pub(super) protection: Protection,
    pub(super) revision: Revision,
    pub(super) instances_max: usize,
    pub(super) hold_max: Duration,
}

impl Registry {
    /// An empty registry. `server` and `seed` go into the lease ids: the number of this server, and
    /// a random number that must differ from process to process.
    pub fn new(server: u8, seed: u64, limits: &Limits) -> Self {
        Self {
            services: HashMap::new(),
            leases: Leases::new(server, seed, limits.protection_hold_max),
            protection: Protection::default(),
            revision: Revision::default(),
            instances_max: limits.instances_max.min(LeaseId::SLOTS),
            hold_max: limits.protection_hold_max,
        }
    }

    /// Where leases are renewed, from any thread and without asking the registry.
    pub fn lease_table(&self) -> Arc<LeaseTable> {
        self.leases.table()
    }

    /// The position in the history.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.leases.live()
    }

    /// A service, also one whose last instance left a while ago.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All services, also those whose last instance is gone.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The lease of an identity, and the instance that it keeps.
    pub fn lease(&self, key: &ServiceKey, id: &InstanceId) -> Option<(LeaseId, &Arc<Instance>)> {
        let member = self.services.get(key)?.roster.member(id)?;
        Some((self.leases.lease_in(member.slot)?, &member.instance))
    }

    /// Moves the expiry wheel and takes out the leases that ran out by `now`, of their TTL or of the
    /// grace after a broken stream: from here on they can't be renewed. Takes out as well the held
    /// ones that were renewed. Looks at `visits_max` leases at most; `true` says that more are due.
    ///
    /// Each must then be given to a plan as [`Command::Enforce`] and that plan be absorbed, or be
    /// given back with [`Self::reinstate`].
    pub fn take_due(&mut self, now: Tick, visits_max: usize) -> (Vec<Due>, bool) {
        self.leases.take_due(now, visits_max)
    }

    /// The namespaces in which leases that ran out are held, in order of their names.
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

    /// Forgets a service without instances once the log no longer holds its last change. Says
    /// whether it did.
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
