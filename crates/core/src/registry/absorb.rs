//! Applies planned transitions to the registry.
//!
//! Pure.

use std::sync::Arc;

use super::{roster::Member, state::Registry, transition::Transition};
use crate::model::{Change, ChangeKind, Presence, Revision, Tick};

/// The change that an absorbed transition made, as watchers see it.
#[derive(Debug)]
pub struct AbsorbedChange {
    /// The change.
    pub change: Arc<Change>,
    /// The revision of the change before it in the same service; 0 for none.
    pub previous: Revision,
}

impl Registry {
    /// Applies a planned transition. Returns the change, if watchers see one. Transitions must come
    /// in the order of their plan.
    pub fn absorb(&mut self, transition: Transition, now: Tick) -> Option<AbsorbedChange> {
        let change = transition.change().map(Arc::new);
        let slot = transition.slot();
        match transition {
            Transition::Added { instance, lease, terms } => {
                let service = self.service_or_new(&instance.service, Revision::default()).number;
                self.leases.grant(lease, service, instance, terms, now);
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

    /// Applies a change to the service of the instance, whose lease has the given slot. Returns the
    /// revision of the service's change before.
    fn store(&mut self, change: &Change, slot: u32) -> Revision {
        let namespace = &change.instance.service.namespace;
        match &change.kind {
            ChangeKind::Added => self.counts.add(namespace),
            ChangeKind::Updated { .. } => {}
            ChangeKind::Removed(_) => self.counts.remove(namespace),
        }
        let service = self.service_or_new(&change.instance.service, Revision::default());
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
}
