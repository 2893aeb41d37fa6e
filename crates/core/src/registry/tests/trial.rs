//! Commands tried on a copy of the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    HOLD_MS, INSTANCES_MAX,
    model::{Entry, Model},
};
use crate::{
    model::{
        Change, ChangeKind, Content, Instance, LeaseId, LeaseTerms, Name, Presence, RemovalReason,
        Revision, ServiceKey,
    },
    registry::{Command, Due, Now, Refusal, Target},
    testing::{Identity, identity},
};

/// A copy of the model, with the effects of commands.
pub(super) struct Trial {
    pub(super) model: Model,
    pub(super) now: Now,
    pub(super) absorbed_at: u64,
    pub(super) room: usize,
    /// The change that each transition makes, if watchers see one.
    pub(super) changes: Vec<Option<Expectation>>,
    /// The instances of namespaces before the trial, and those that it adds.
    pub(super) taken: BTreeMap<Name, usize>,
    /// The expired leases of each namespace.
    pub(super) expired: BTreeMap<Name, i64>,
    /// The slots of the suspects from before the trial that have not been renewed.
    pub(super) held: BTreeSet<u32>,
}

/// An expected change.
pub(super) struct Expectation {
    pub(super) change: Change,
    /// The revision of the service's change before it.
    pub(super) previous: Revision,
    /// The TTL of the lease.
    pub(super) ttl_ms: u64,
}

pub(super) type Expected = Result<(Option<Instance>, Option<Revision>), Refusal>;

impl Trial {
    pub(super) fn new(model: Model, now: Now, absorbed_at: u64) -> Self {
        let room = INSTANCES_MAX - model.entries.len();
        let suspects = model.entries.values().filter(|entry| entry.is_suspect() && !entry.renewed);
        let held = suspects.map(|entry| entry.lease.slot()).collect();
        let expired = BTreeMap::new();
        let mut taken = BTreeMap::new();
        for (service, _) in model.entries.keys() {
            *taken.entry(service.namespace.clone()).or_default() += 1;
        }
        Self { model, now, absorbed_at, room, taken, changes: Vec::new(), expired, held }
    }

    pub(super) fn decide(&mut self, command: &Command) -> Expected {
        match command {
            Command::Register { service, id, content, terms, instances_max } => {
                self.register(&(service.clone(), id.clone()), content, *terms, *instances_max)
            }
            Command::Update { target, patch } => {
                let identity = self.model.find(target)?;
                let content = patch.apply(&self.model.entries[&identity].instance.content);
                self.put_content(&identity, content);
                let instance = self.model.entries[&identity].instance.clone();
                Ok((Some(instance), Some(self.model.revision)))
            }
            Command::Deregister { target } => {
                let identity = self.model.find(target)?;
                let reason = match target {
                    Target::Lease(_) => RemovalReason::Deregistered,
                    Target::Identity(..) => RemovalReason::Evicted,
                };
                self.remove(&identity, reason);
                Ok((None, Some(self.model.revision)))
            }
            Command::Enforce(due) => {
                if let Ok(identity) = self.model.find(&Target::Lease(due.lease())) {
                    self.enforce(&identity, *due);
                }
                Ok((None, None))
            }
            Command::Release { namespace, count_max } => {
                let suspects = self.model.entries.iter().filter(|((service, _), entry)| {
                    service.namespace == *namespace
                        && entry.is_suspect()
                        && self.held.contains(&entry.lease.slot())
                });
                let mut suspects: Vec<_> = suspects
                    .map(|(identity, entry)| (entry.lease.slot(), identity.clone()))
                    .collect();
                suspects.sort();
                for (_, identity) in suspects.iter().take(*count_max) {
                    self.remove(identity, RemovalReason::Evicted);
                }
                Ok((None, Some(self.model.revision)))
            }
        }
    }

    fn enforce(&mut self, identity: &Identity, due: Due) {
        let namespace = &identity.0.namespace;
        let entry = &self.model.entries[identity];
        match due {
            Due::Renewed { .. } => {
                self.put_presence(identity, Presence::Confirmed);
                let absorbed_at = self.absorbed_at;
                let entry = self.model.entries.get_mut(identity).unwrap();
                entry.renewed = false;
                entry.due_by = entry.due_by.max(absorbed_at + Entry::SLACK_MS);
            }
            Due::Expired { reason, .. } if entry.is_suspect() => self.remove(identity, reason),
            Due::Expired { reason, .. } => {
                let planned = self.expired.entry(namespace.clone()).or_default();
                let share =
                    self.model.expiry_share(namespace, entry.ttl_ms, self.now.tick.0, *planned);
                *planned += 1;
                if share.expired < 10 || f64::from(share.expired) <= 0.3 * f64::from(share.of) {
                    return self.remove(identity, reason);
                }
                self.put_presence(identity, Presence::Suspect);
                let absorbed_at = self.absorbed_at;
                let entry = self.model.entries.get_mut(identity).unwrap();
                entry.renewed_at = absorbed_at;
                entry.due_by = absorbed_at + HOLD_MS + Entry::SLACK_MS;
                self.model.suspects += 1;
            }
        }
    }

    fn put_presence(&mut self, identity: &Identity, presence: Presence) {
        let revision = self.model.revision.next();
        let instance = &mut self.model.entries.get_mut(identity).unwrap().instance;
        let before = Arc::new(instance.clone());
        instance.presence = presence;
        instance.modified = revision;
        let after = instance.clone();
        self.emit(ChangeKind::Updated { before, replaced: false }, after);
    }

    /// Leaves the lease empty: the model can't predict it.
    fn take_room(&mut self, namespace: &Name, instances_max: Option<usize>) -> Result<(), Refusal> {
        if self.room == 0 {
            return Err(Refusal::Full { instances_max: INSTANCES_MAX });
        }
        let taken = self.taken.entry(namespace.clone()).or_default();
        match instances_max {
            Some(instances_max) if *taken >= instances_max => {
                let namespace = namespace.clone();
                return Err(Refusal::NamespaceFull { namespace, instances_max });
            }
            _ => *taken += 1,
        }
        self.room -= 1;
        Ok(())
    }

    fn register(
        &mut self,
        identity: &Identity,
        content: &Content,
        terms: LeaseTerms,
        instances_max: Option<usize>,
    ) -> Expected {
        let ttl_ms = u64::try_from(terms.ttl.as_millis()).unwrap();
        if let Some(entry) = self.model.entries.get_mut(identity) {
            entry.fenced.insert(entry.lease);
            entry.ttl_ms = ttl_ms;
            entry.renewed = false;
            let before = Arc::new(entry.instance.clone());
            let after = Instance {
                content: content.clone(),
                presence: Presence::Confirmed,
                ..entry.instance.clone()
            };
            if after == *before {
                self.changes.push(None);
            } else {
                let after = Instance { modified: self.model.revision.next(), ..after };
                entry.instance = after.clone();
                let replaced = before.content != after.content;
                self.emit(ChangeKind::Updated { before, replaced }, after);
            }
        } else {
            self.take_room(&identity.0.namespace, instances_max)?;
            let revision = self.model.revision.next();
            let instance = Instance {
                service: Arc::new(identity.0.clone()),
                id: identity.1.clone(),
                content: content.clone(),
                presence: Presence::Confirmed,
                created: revision,
                modified: revision,
                registered_at: self.now.wall,
            };
            let lease = LeaseId::from_bits(0);
            let fenced = BTreeSet::new();
            let entry = Entry {
                instance: instance.clone(),
                lease,
                fenced,
                ttl_ms,
                renewed_at: 0,
                renewed: false,
                due_by: 0,
            };
            self.model.entries.insert(identity.clone(), entry);
            self.emit(ChangeKind::Added, instance);
        }
        let entry = self.model.entries.get_mut(identity).unwrap();
        entry.renewed_at = self.absorbed_at;
        entry.renew(self.absorbed_at);
        Ok((Some(entry.instance.clone()), Some(self.model.revision)))
    }

    fn put_content(&mut self, identity: &Identity, content: Content) {
        let revision = self.model.revision.next();
        let instance = &mut self.model.entries.get_mut(identity).unwrap().instance;
        if instance.content != content {
            let before = Arc::new(instance.clone());
            instance.content = content;
            instance.modified = revision;
            let after = instance.clone();
            self.emit(ChangeKind::Updated { before, replaced: false }, after);
        }
    }

    fn remove(&mut self, identity: &Identity, reason: RemovalReason) {
        let mut instance = self.model.entries.remove(identity).unwrap().instance;
        instance.modified = self.model.revision.next();
        self.emit(ChangeKind::Removed(reason), instance);
    }

    fn emit(&mut self, kind: ChangeKind, instance: Instance) {
        self.model.revision = instance.modified;
        let service = ServiceKey::clone(&instance.service);
        let previous = self.model.services.insert(service, instance.modified).unwrap_or_default();
        let ttl_ms = self.model.entries.get(&identity(&instance)).map_or(0, |entry| entry.ttl_ms);
        let change = Change { kind, instance: Arc::new(instance) };
        self.changes.push(Some(Expectation { change, previous, ttl_ms }));
    }
}
