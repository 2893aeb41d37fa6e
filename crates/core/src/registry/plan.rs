//! Decides what commands do, one after another, each upon the decisions before it, and without
//! doing any of it.

use std::{collections::HashMap, sync::Arc};

use super::{
    command::{Command, Outcome, Patch, Refusal, Target},
    lease::{Due, LeaseState},
    state::{Now, Registry},
    transition::Transition,
};
use crate::model::{
    Content, Instance, InstanceId, LeaseId, LeaseTerms, Name, Presence, RemovalReason, Revision,
    ServiceKey,
};

/// Decisions upon a registry that they have not reached yet.
#[derive(Debug)]
pub struct Plan<'a> {
    registry: &'a Registry,
    now: Now,
    transitions: Vec<Transition>,
    /// The slots whose identities the plan has changed, as they will be. None of them gets another
    /// identity within the plan.
    touched: HashMap<u32, Option<LiveInstance>>,
    /// Where identities are that the plan has added.
    added: HashMap<(Arc<ServiceKey>, InstanceId), u32>,
    revision: Revision,
    grants: usize,
    /// How many leases of each namespace run out by the plan.
    expired: HashMap<Name, u32>,
}

/// A live identity.
#[derive(Debug, Clone)]
struct LiveInstance {
    instance: Arc<Instance>,
    lease: LeaseId,
}

impl Registry {
    /// Begins to decide on commands.
    pub fn plan(&self, now: Now) -> Plan<'_> {
        Plan::new(self, now)
    }
}

impl<'a> Plan<'a> {
    fn new(registry: &'a Registry, now: Now) -> Self {
        Self {
            registry,
            now,
            transitions: Vec::new(),
            touched: HashMap::new(),
            added: HashMap::new(),
            revision: registry.revision,
            grants: 0,
            expired: HashMap::new(),
        }
    }

    /// What the decisions so far come to, in their order.
    pub fn into_transitions(self) -> Vec<Transition> {
        self.transitions
    }

    /// The position after the decisions so far.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Decides on one command.
    pub fn decide(&mut self, command: Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Register { service, id, content, terms } => {
                self.register(service, id, content, terms)
            }
            Command::Update { target, patch } => self.update(&target, &patch),
            Command::Deregister { target } => self.deregister(&target),
            Command::Enforce(due) => {
                self.enforce(due);
                Ok(Outcome::Enforced)
            }
            Command::Release { namespace, count_max } => Ok(self.release(&namespace, count_max)),
        }
    }

    fn register(
        &mut self,
        service: ServiceKey,
        id: InstanceId,
        content: Content,
        terms: LeaseTerms,
    ) -> Result<Outcome, Refusal> {
        let service = match self.registry.services.get_key_value(&service) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(service),
        };
        let (instance, lease) = match self.place(&service, &id) {
            Some(place) => self.take_over(place, content, terms),
            None => self.add(service, id, content, terms)?,
        };
        Ok(Outcome::Registered { instance, lease, revision: self.revision })
    }

    fn add(
        &mut self,
        service: Arc<ServiceKey>,
        id: InstanceId,
        content: Content,
        terms: LeaseTerms,
    ) -> Result<(Arc<Instance>, LeaseId), Refusal> {
        // What the plan removes makes room only once it is absorbed: slots are granted before.
        let instances_max = self.registry.instances_max;
        if self.registry.instances() + self.grants >= instances_max {
            return Err(Refusal::Full { instances_max });
        }
        let lease = self.registry.leases.upcoming(self.grants);
        self.grants += 1;
        self.revision = self.revision.next();
        let instance = Arc::new(Instance {
            service,
            id,
            content,
            presence: Presence::Confirmed,
            created: self.revision,
            modified: self.revision,
            registered_at: self.now.wall,
        });
        let identity = (Arc::clone(&instance.service), instance.id.clone());
        self.added.insert(identity, lease.slot());
        self.touch(&instance, lease);
        let added = Arc::clone(&instance);
        self.transitions.push(Transition::Added { instance: added, lease, terms });
        Ok((instance, lease))
    }

    fn take_over(
        &mut self,
        place: LiveInstance,
        content: Content,
        terms: LeaseTerms,
    ) -> (Arc<Instance>, LeaseId) {
        let lease = self.registry.leases.successor(place.lease);
        let (instance, before) = match self.changed(&place.instance, content, Presence::Confirmed) {
            Some(instance) => (instance, Some(place.instance)),
            None => (place.instance, None),
        };
        self.touch(&instance, lease);
        let taken = Arc::clone(&instance);
        self.transitions.push(Transition::TakenOver { instance: taken, lease, terms, before });
        (instance, lease)
    }

    fn update(&mut self, target: &Target, patch: &Patch) -> Result<Outcome, Refusal> {
        let place = self.target(target)?;
        let content = patch.apply(&place.instance.content);
        let presence = place.instance.presence;
        let instance = self.put(place, content, presence);
        Ok(Outcome::Updated { instance, revision: self.revision })
    }

    /// Leaves the place with the given content and presence; returns the instance as it then stands.
    fn put(&mut self, place: LiveInstance, content: Content, presence: Presence) -> Arc<Instance> {
        let Some(instance) = self.changed(&place.instance, content, presence) else {
            return place.instance;
        };
        self.touch(&instance, place.lease);
        self.transitions.push(Transition::Updated {
            instance: Arc::clone(&instance),
            slot: place.lease.slot(),
            before: place.instance,
        });
        instance
    }

    fn deregister(&mut self, target: &Target) -> Result<Outcome, Refusal> {
        let place = self.target(target)?;
        let reason = match target {
            Target::Lease(_) => RemovalReason::Deregistered,
            Target::Identity(..) => RemovalReason::Evicted,
        };
        self.remove(&place, reason);
        Ok(Outcome::Deregistered { revision: self.revision })
    }

    fn enforce(&mut self, due: Due) {
        // An earlier command may have taken the identity over or removed it.
        let Ok(place) = self.leased(due.lease()) else { return };
        let presence = match due {
            Due::Renewed { .. } => Presence::Confirmed,
            Due::Expired { .. } if self.is_held(&place) => Presence::Suspect,
            Due::Expired { reason, .. } => return self.remove(&place, reason),
        };
        let content = place.instance.content.clone();
        self.put(place, content, presence);
    }

    /// Whether a lease that ran out is kept: one of too many, and not kept for long enough already.
    fn is_held(&mut self, place: &LiveInstance) -> bool {
        if place.instance.presence == Presence::Suspect {
            return false;
        }
        let namespace = &place.instance.service.namespace;
        let expired = match self.expired.get_mut(namespace) {
            Some(expired) => expired,
            None => self.expired.entry(namespace.clone()).or_default(),
        };
        let now = self.now.tick;
        let begin = self.registry.leases.window_begin(place.lease.slot(), now);
        let share = self.registry.protection.expiry_share(namespace, begin, now, *expired);
        *expired += 1;
        share.exceeds_threshold()
    }

    fn release(&mut self, namespace: &Name, count_max: usize) -> Outcome {
        let mut count = 0;
        for slot in self.registry.protection.held(namespace) {
            if count == count_max {
                break;
            }
            let Some(lease) = self.registry.leases.lease_in(slot) else { continue };
            // An earlier command may have made it something else, or it has just been renewed.
            let Ok(place) = self.leased(lease) else { continue };
            if place.instance.presence == Presence::Suspect && self.registry.leases.is_held(slot) {
                self.remove(&place, RemovalReason::Evicted);
                count += 1;
            }
        }
        Outcome::Released { count, revision: self.revision }
    }

    fn remove(&mut self, place: &LiveInstance, reason: RemovalReason) {
        self.revision = self.revision.next();
        let instance = Instance { modified: self.revision, ..Instance::clone(&place.instance) };
        let instance = Arc::new(instance);
        let slot = place.lease.slot();
        self.touched.insert(slot, None);
        self.transitions.push(Transition::Removed { instance, slot, reason });
    }

    /// The instance with other content or another presence, at a revision of its own; `None` if both
    /// are the same.
    fn changed(
        &mut self,
        instance: &Instance,
        content: Content,
        presence: Presence,
    ) -> Option<Arc<Instance>> {
        if instance.content == content && instance.presence == presence {
            return None;
        }
        self.revision = self.revision.next();
        Some(Arc::new(Instance {
            service: Arc::clone(&instance.service),
            id: instance.id.clone(),
            content,
            presence,
            created: instance.created,
            modified: self.revision,
            registered_at: instance.registered_at,
        }))
    }

    fn touch(&mut self, instance: &Arc<Instance>, lease: LeaseId) {
        let place = LiveInstance { instance: Arc::clone(instance), lease };
        self.touched.insert(lease.slot(), Some(place));
    }

    /// The identity as the plan leaves it.
    fn place(&self, service: &Arc<ServiceKey>, id: &InstanceId) -> Option<LiveInstance> {
        let service_now = self.registry.services.get(service.as_ref());
        if let Some(member) = service_now.and_then(|service| service.roster.member(id)) {
            match self.touched.get(&member.slot) {
                None => {
                    let lease = self.registry.leases.lease_in(member.slot)?;
                    return Some(LiveInstance { instance: Arc::clone(&member.instance), lease });
                }
                Some(Some(place)) => return Some(place.clone()),
                // The plan removed it, and may have added it again.
                Some(None) => {}
            }
        }
        if self.added.is_empty() {
            return None;
        }
        let slot = self.added.get(&(Arc::clone(service), id.clone()))?;
        self.touched.get(slot).cloned().flatten()
    }

    fn target(&self, target: &Target) -> Result<LiveInstance, Refusal> {
        match target {
            Target::Lease(lease) => self.leased(*lease),
            Target::Identity(service, id) => {
                let shared = Arc::new(service.clone());
                self.place(&shared, id).ok_or_else(|| Refusal::NoSuchInstance {
                    service: service.clone(),
                    id: id.clone(),
                })
            }
        }
    }

    /// The identity that a lease holds as the plan leaves it.
    fn leased(&self, lease: LeaseId) -> Result<LiveInstance, Refusal> {
        let state = self.registry.leases.state(lease);
        match (self.touched.get(&lease.slot()), state) {
            (None, LeaseState::Active(instance)) => {
                Ok(LiveInstance { instance: Arc::clone(instance), lease })
            }
            (None, LeaseState::Fenced) => Err(Refusal::Fenced(lease)),
            (Some(Some(place)), _) if place.lease == lease => Ok(place.clone()),
            // The slot's identity lives under another lease: this one was fenced off, by the plan
            // or before, unless it belonged to somebody else.
            (Some(Some(_)), LeaseState::Active(_) | LeaseState::Fenced) => {
                Err(Refusal::Fenced(lease))
            }
            _ => Err(Refusal::NoSuchLease(lease)),
        }
    }
}
