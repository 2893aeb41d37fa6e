//! The registry as a pure state machine: who lives, under which lease, and what changed. It has no
//! clock, does no I/O and never waits: time comes in as numbers, and what should happen goes out
//! as values.
//!
//! A change takes one way: [`Registry::plan`] decides what commands do without doing it,
//! somebody makes the resulting [`Transition`]s durable, [`Registry::absorb`] makes them true.
//! What was planned and not absorbed has left no trace.

mod command;
mod lease_table;
mod leases;
mod log;
mod plan;
mod protection;
mod restored;
mod roster;
mod wheel;

use std::{collections::HashMap, sync::Arc, time::Duration};

pub use command::{Command, Outcome, Patch, Refusal, Target};
pub use lease_table::{LeaseTable, StreamId};
pub use leases::Due;
pub use log::{ChangeLog, LogEntry};
pub use plan::{Plan, Transition};
use protection::Protection;
pub use protection::{ExpiryShare, ProtectedNamespace};
pub use restored::{RestoredLease, RestoredState};
use roster::Member;
pub use roster::{Roster, RosterChunk, SharedEncoding};

use crate::model::{
    Change, ChangeKind, Instance, InstanceId, LeaseId, Limits, Presence, Revision, ServiceKey,
    Tick, WallTime,
};
use leases::Leases;

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
    services: HashMap<Arc<ServiceKey>, Arc<Service>>,
    leases: Leases,
    protection: Protection,
    revision: Revision,
    instances_max: usize,
    hold_max: Duration,
}

/// The change that an absorbed transition made, as watchers see it.
#[derive(Debug)]
pub struct AbsorbedChange {
    /// The change.
    pub change: Arc<Change>,
    /// The revision of the service's last change before this one.
    pub previous: Revision,
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

    /// The lease of an identity, and the instance that it keeps.
    pub fn lease(&self, key: &ServiceKey, id: &InstanceId) -> Option<(LeaseId, &Arc<Instance>)> {
        let member = self.services.get(key)?.roster.member(id)?;
        Some((self.leases.lease_in(member.slot)?, &member.instance))
    }

    /// Begins to decide on commands.
    pub fn plan(&self, now: Now) -> Plan<'_> {
        Plan::new(self, now)
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

    /// Applies a planned transition. Returns the change, if watchers see one. Transitions have to come
    /// in the order of their plan.
    pub fn absorb(&mut self, transition: Transition, now: Tick) -> Option<AbsorbedChange> {
        let change = transition.change().map(Arc::new);
        let slot = transition.slot();
        match transition {
            Transition::Added { instance, lease, terms } => {
                self.leases.grant(lease, instance, terms, now);
            }
            Transition::TakenOver { instance, lease, terms, .. } => {
                self.leases.supersede(lease, instance, terms, now);
            }
            Transition::Updated { instance, before, .. } => {
                let presences = (before.presence, instance.presence);
                self.leases.replace(slot, instance);
                match presences {
                    (Presence::Confirmed, Presence::Suspect) => self.leases.hold(slot, now),
                    (Presence::Suspect, Presence::Confirmed) => self.leases.reschedule(slot),
                    _ => {}
                }
            }
            Transition::Removed { .. } => self.leases.end(slot),
        }
        let change = change?;
        let begin = self.leases.window_begin(slot, now);
        self.protection.absorb(&change, slot, begin, now);
        let previous = self.store(&change, slot);
        Some(AbsorbedChange { change, previous })
    }

    /// Puts what a change did to the instance with the given slot. Returns the revision of the
    /// service's last change before.
    fn store(&mut self, change: &Change, slot: u32) -> Revision {
        let key = &change.instance.service;
        let service = self.services.entry(Arc::clone(key)).or_insert_with(|| {
            let revision = Revision::default();
            Arc::new(Service { key: Arc::clone(key), roster: Roster::default(), revision })
        });
        let service = Arc::make_mut(service);
        let previous = std::mem::replace(&mut service.revision, change.revision());
        match &change.kind {
            ChangeKind::Added | ChangeKind::Updated { .. } => {
                let instance = Arc::clone(&change.instance);
                service.roster.insert(Member { instance, slot });
            }
            ChangeKind::Removed(_) => service.roster.remove(&change.instance.id),
        }
        self.revision = change.revision();
        previous
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

#[cfg(test)]
mod tests;
