//! Decides on commands one after another, each on top of the decisions before it.
//!
//! Pure. Invariant: a plan does not change the registry.

use std::{collections::HashMap, sync::Arc};

use super::{
    command::{Command, Outcome, Patch, Refusal, Target},
    instance_counts::InstanceCounts,
    lease::{Due, Generations, LeaseState},
    state::{Now, Registry},
    transition::Transition,
};
use crate::model::{
    Content, Instance, InstanceId, LeaseId, LeaseTerms, Name, Presence, RemovalReason, Revision,
    ServiceKey,
};

/// Decisions that are not absorbed yet.
#[derive(Debug)]
pub struct Plan<'a> {
    registry: &'a Registry,
    now: Now,
    transitions: Vec<Transition>,
    /// The instances that the plan leaves in the slots it changes. A slot gets no other identity
    /// within the plan.
    touched: HashMap<u32, Option<LiveInstance>>,
    /// The slots of the identities that the plan adds.
    added: HashMap<(Arc<ServiceKey>, InstanceId), u32>,
    revision: Revision,
    grants: usize,
    /// The instances that the plan adds to namespaces.
    added_to: InstanceCounts,
    /// The generations of further grants; `None` before the first.
    generations: Option<Generations>,
    /// The number of expired leases of each namespace in the plan.
    expired: HashMap<Name, u32>,
}

/// A registered instance and its lease.
#[derive(Debug, Clone)]
struct LiveInstance {
    instance: Arc<Instance>,
    lease: LeaseId,
}

impl Registry {
    /// Starts a plan.
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
            added_to: InstanceCounts::default(),
            generations: None,
            expired: HashMap::new(),
        }
    }

    /// Returns the transitions, in the order of the decisions.
    pub fn into_transitions(self) -> Vec<Transition> {
        self.transitions
    }

    /// Returns the revision after the decisions.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Decides on one command.
    pub fn decide(&mut self, command: Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Register { service, id, content, terms, instances_max } => {
                self.register(service, id, content, terms, instances_max)
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
        instances_max: Option<usize>,
    ) -> Result<Outcome, Refusal> {
        let service = match self.registry.services.get_key_value(&service) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(service),
        };
        let (instance, lease) = match self.by_identity(&service, &id) {
            Some(live) => self.take_over(live, content, terms),
            None => {
                self.check_room(&service.namespace, instances_max)?;
                self.add(service, id, content, terms)
            }
        };
        Ok(Outcome::Registered { instance, lease, revision: self.revision })
    }

    /// Checks that there is room for another instance. A planned removal makes none: its slot is
    /// free only once it is absorbed.
    fn check_room(&self, namespace: &Name, namespace_max: Option<usize>) -> Result<(), Refusal> {
        let instances_max = self.registry.instances_max;
        if self.registry.instances() + self.grants >= instances_max {
            return Err(Refusal::Full { instances_max });
        }
        let taken = || self.registry.instances_in(namespace) + self.added_to.of(namespace);
        match namespace_max {
            Some(instances_max) if taken() >= instances_max => {
                Err(Refusal::NamespaceFull { namespace: namespace.clone(), instances_max })
            }
            _ => Ok(()),
        }
    }

    fn add(
        &mut self,
        service: Arc<ServiceKey>,
        id: InstanceId,
        content: Content,
        terms: LeaseTerms,
    ) -> (Arc<Instance>, LeaseId) {
        let leases = &self.registry.leases;
        let generations = self.generations.get_or_insert_with(|| leases.generations());
        let lease = leases.upcoming(self.grants, generations);
        self.grants += 1;
        self.added_to.add(&service.namespace);
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
        (instance, lease)
    }

    fn take_over(
        &mut self,
        live: LiveInstance,
        content: Content,
        terms: LeaseTerms,
    ) -> (Arc<Instance>, LeaseId) {
        let lease = self.registry.leases.successor(live.lease);
        let (instance, before) = match self.changed(&live.instance, content, Presence::Confirmed) {
            Some(instance) => (instance, Some(live.instance)),
            None => (live.instance, None),
        };
        self.touch(&instance, lease);
        let taken = Arc::clone(&instance);
        self.transitions.push(Transition::TakenOver { instance: taken, lease, terms, before });
        (instance, lease)
    }

    fn update(&mut self, target: &Target, patch: &Patch) -> Result<Outcome, Refusal> {
        let live = self.target(target)?;
        let content = patch.apply(&live.instance.content);
        let presence = live.instance.presence;
        let instance = self.put(live, content, presence);
        Ok(Outcome::Updated { instance, revision: self.revision })
    }

    /// Gives the instance another content and presence; returns it as it then is.
    fn put(&mut self, live: LiveInstance, content: Content, presence: Presence) -> Arc<Instance> {
        let Some(instance) = self.changed(&live.instance, content, presence) else {
            return live.instance;
        };
        self.touch(&instance, live.lease);
        self.transitions.push(Transition::Updated {
            instance: Arc::clone(&instance),
            slot: live.lease.slot(),
            before: live.instance,
        });
        instance
    }

    fn deregister(&mut self, target: &Target) -> Result<Outcome, Refusal> {
        let live = self.target(target)?;
        let reason = match target {
            Target::Lease(_) => RemovalReason::Deregistered,
            Target::Identity(..) => RemovalReason::Evicted,
        };
        self.remove(&live, reason);
        Ok(Outcome::Deregistered { instance: live.instance, revision: self.revision })
    }

    fn enforce(&mut self, due: Due) {
        // An earlier command may have taken over or removed the instance.
        let Ok(live) = self.by_lease(due.lease()) else { return };
        let presence = match due {
            Due::Renewed { .. } => Presence::Confirmed,
            Due::Expired { .. } if self.hold(&live) => Presence::Suspect,
            Due::Expired { reason, .. } => return self.remove(&live, reason),
        };
        let content = live.instance.content.clone();
        self.put(live, content, presence);
    }

    /// Counts an expired lease; returns whether it is held. A hold that ended is not repeated.
    fn hold(&mut self, live: &LiveInstance) -> bool {
        if live.instance.presence == Presence::Suspect {
            return false;
        }
        let namespace = &live.instance.service.namespace;
        let expired = match self.expired.get_mut(namespace) {
            Some(expired) => expired,
            None => self.expired.entry(namespace.clone()).or_default(),
        };
        let now = self.now.tick;
        let begin = self.registry.leases.window_begin(live.lease.slot(), now);
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
            // An earlier command may have changed it, or it was just renewed.
            let Ok(live) = self.by_lease(lease) else { continue };
            if live.instance.presence == Presence::Suspect && self.registry.leases.is_held(slot) {
                self.remove(&live, RemovalReason::Evicted);
                count += 1;
            }
        }
        Outcome::Released { count, revision: self.revision }
    }

    fn remove(&mut self, live: &LiveInstance, reason: RemovalReason) {
        self.revision = self.revision.next();
        let instance = Instance { modified: self.revision, ..Instance::clone(&live.instance) };
        let instance = Arc::new(instance);
        let slot = live.lease.slot();
        self.touched.insert(slot, None);
        self.transitions.push(Transition::Removed { instance, slot, reason });
    }

    /// Returns the instance with another content or presence, at the next revision; `None` if both
    /// are equal.
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
        let live = LiveInstance { instance: Arc::clone(instance), lease };
        self.touched.insert(lease.slot(), Some(live));
    }

    /// Finds the instance of an identity, as the plan leaves it.
    fn by_identity(&self, service: &Arc<ServiceKey>, id: &InstanceId) -> Option<LiveInstance> {
        let service_now = self.registry.services.get(service.as_ref());
        if let Some(member) = service_now.and_then(|service| service.roster.member(id)) {
            match self.touched.get(&member.slot) {
                None => {
                    let lease = self.registry.leases.lease_in(member.slot)?;
                    return Some(LiveInstance { instance: Arc::clone(&member.instance), lease });
                }
                Some(Some(live)) => return Some(live.clone()),
                // The plan removed the instance, and may have added it again.
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
            Target::Lease(lease) => self.by_lease(*lease),
            Target::Identity(service, id) => {
                let shared = Arc::new(service.clone());
                self.by_identity(&shared, id).ok_or_else(|| Refusal::NoSuchInstance {
                    service: service.clone(),
                    id: id.clone(),
                })
            }
        }
    }

    /// Finds the instance of a lease, as the plan leaves it.
    fn by_lease(&self, lease: LeaseId) -> Result<LiveInstance, Refusal> {
        let state = self.registry.leases.state(lease);
        match (self.touched.get(&lease.slot()), state) {
            (None, LeaseState::Active(instance)) => {
                Ok(LiveInstance { instance: Arc::clone(instance), lease })
            }
            (None, LeaseState::Fenced) => Err(Refusal::Fenced(lease)),
            (Some(Some(live)), _) if live.lease == lease => Ok(live.clone()),
            // The slot's identity has another lease. This one was fenced, by the plan or before,
            // unless it belonged to another identity.
            (Some(Some(_)), LeaseState::Active(_) | LeaseState::Fenced) => {
                Err(Refusal::Fenced(lease))
            }
            _ => Err(Refusal::NoSuchLease(lease)),
        }
    }
}
