//! Decides what commands do, one after another, each upon the decisions before it, and without
//! doing any of it.

use std::{collections::HashMap, sync::Arc};

use super::{Command, Expired, Now, Outcome, Patch, Refusal, Registry, Target, leases::Standing};
use crate::model::{
    Change, ChangeKind, Content, Instance, InstanceId, LeaseId, LeaseTerms, RemovalReason,
    Revision, ServiceKey,
};

/// What a command does to one identity: the unit that stores keep and the registry absorbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// A new identity with a new lease.
    Added {
        /// The instance.
        instance: Arc<Instance>,
        /// Its lease.
        lease: LeaseId,
        /// How long the lease lives.
        terms: LeaseTerms,
    },
    /// A live identity under a new lease.
    TakenOver {
        /// The instance.
        instance: Arc<Instance>,
        /// Its new lease, in the slot of the old one.
        lease: LeaseId,
        /// How long the lease lives.
        terms: LeaseTerms,
        /// The instance before, where its content changed: only then watchers see something.
        before: Option<Arc<Instance>>,
    },
    /// Other content.
    Updated {
        /// The instance.
        instance: Arc<Instance>,
        /// The slot of its lease.
        slot: u32,
        /// The instance before.
        before: Arc<Instance>,
    },
    /// The identity is gone.
    Removed {
        /// The instance as last known, at the revision of its removal.
        instance: Arc<Instance>,
        /// The slot of its lease.
        slot: u32,
        /// Why.
        reason: RemovalReason,
    },
}

impl Transition {
    /// What watchers see of it, if anything.
    pub fn change(&self) -> Option<Change> {
        let (kind, instance) = match self {
            Self::Added { instance, .. } => (ChangeKind::Added, instance),
            Self::TakenOver { before: None, .. } => return None,
            Self::TakenOver { instance, before: Some(before), .. } => {
                (ChangeKind::Updated { before: Arc::clone(before), replaced: true }, instance)
            }
            Self::Updated { instance, before, .. } => {
                (ChangeKind::Updated { before: Arc::clone(before), replaced: false }, instance)
            }
            Self::Removed { instance, reason, .. } => (ChangeKind::Removed(*reason), instance),
        };
        Some(Change { kind, instance: Arc::clone(instance) })
    }
}

/// Decisions upon a registry that they have not reached yet.
#[derive(Debug)]
pub struct Plan<'a> {
    registry: &'a Registry,
    now: Now,
    transitions: Vec<Transition>,
    /// The identities that the plan has changed, as they will be.
    touched: HashMap<(Arc<ServiceKey>, InstanceId), Option<Place>>,
    /// The identities that the plan gave leases to.
    granted: HashMap<u32, (Arc<ServiceKey>, InstanceId)>,
    revision: Revision,
    added: usize,
}

/// A live identity.
#[derive(Debug, Clone)]
struct Place {
    instance: Arc<Instance>,
    lease: LeaseId,
}

impl<'a> Plan<'a> {
    pub(super) fn new(registry: &'a Registry, now: Now) -> Self {
        Self {
            registry,
            now,
            transitions: Vec::new(),
            touched: HashMap::new(),
            granted: HashMap::new(),
            revision: registry.revision,
            added: 0,
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
                self.register(service, id, *content, terms)
            }
            Command::Update { target, patch } => self.update(&target, &patch),
            Command::Deregister { target } => self.deregister(&target),
            Command::Expire(expired) => Ok(self.expire(expired)),
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
        if self.registry.instances() + self.added >= instances_max {
            return Err(Refusal::Full { instances_max });
        }
        let lease = self.registry.leases.upcoming(self.added);
        self.added += 1;
        self.revision = self.revision.next();
        let instance = Arc::new(Instance {
            service,
            id,
            content,
            created: self.revision,
            modified: self.revision,
            registered_at: self.now.wall,
        });
        self.touch(&instance, Some(lease));
        let added = Arc::clone(&instance);
        self.transitions.push(Transition::Added { instance: added, lease, terms });
        Ok((instance, lease))
    }

    fn take_over(
        &mut self,
        place: Place,
        content: Content,
        terms: LeaseTerms,
    ) -> (Arc<Instance>, LeaseId) {
        let lease = self.registry.leases.successor(place.lease);
        let (instance, before) = match self.changed(&place.instance, content) {
            Some(instance) => (instance, Some(place.instance)),
            None => (place.instance, None),
        };
        self.touch(&instance, Some(lease));
        let taken = Arc::clone(&instance);
        self.transitions.push(Transition::TakenOver { instance: taken, lease, terms, before });
        (instance, lease)
    }

    fn update(&mut self, target: &Target, patch: &Patch) -> Result<Outcome, Refusal> {
        let place = self.target(target)?;
        let content = patch.apply(&place.instance.content);
        let Some(instance) = self.changed(&place.instance, content) else {
            let instance = place.instance;
            return Ok(Outcome::Updated { instance, revision: self.revision });
        };
        self.touch(&instance, Some(place.lease));
        self.transitions.push(Transition::Updated {
            instance: Arc::clone(&instance),
            slot: place.lease.slot(),
            before: place.instance,
        });
        Ok(Outcome::Updated { instance, revision: self.revision })
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

    fn expire(&mut self, expired: Expired) -> Outcome {
        // An earlier command may have taken the identity over or removed it.
        if let Ok(place) = self.target(&Target::Lease(expired.lease)) {
            self.remove(&place, expired.reason);
        }
        Outcome::Expired
    }

    fn remove(&mut self, place: &Place, reason: RemovalReason) {
        self.revision = self.revision.next();
        let instance = Instance { modified: self.revision, ..Instance::clone(&place.instance) };
        let instance = Arc::new(instance);
        self.touch(&instance, None);
        let slot = place.lease.slot();
        self.transitions.push(Transition::Removed { instance, slot, reason });
    }

    /// The instance with other content, at a revision of its own; `None` if the content is the same.
    fn changed(&mut self, instance: &Instance, content: Content) -> Option<Arc<Instance>> {
        if instance.content == content {
            return None;
        }
        self.revision = self.revision.next();
        Some(Arc::new(Instance {
            service: Arc::clone(&instance.service),
            id: instance.id.clone(),
            content,
            created: instance.created,
            modified: self.revision,
            registered_at: instance.registered_at,
        }))
    }

    fn touch(&mut self, instance: &Arc<Instance>, lease: Option<LeaseId>) {
        let identity = (Arc::clone(&instance.service), instance.id.clone());
        if let Some(lease) = lease {
            self.granted.insert(lease.slot(), identity.clone());
        }
        let place = lease.map(|lease| Place { instance: Arc::clone(instance), lease });
        self.touched.insert(identity, place);
    }

    /// The identity as the plan leaves it.
    fn place(&self, service: &Arc<ServiceKey>, id: &InstanceId) -> Option<Place> {
        if !self.touched.is_empty() {
            let identity = (Arc::clone(service), id.clone());
            if let Some(place) = self.touched.get(&identity) {
                return place.clone();
            }
        }
        let member = self.registry.services.get(service.as_ref())?.roster.member(id)?;
        let lease = self.registry.leases.holder(member.slot)?;
        Some(Place { instance: Arc::clone(&member.instance), lease })
    }

    fn target(&self, target: &Target) -> Result<Place, Refusal> {
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
    fn leased(&self, lease: LeaseId) -> Result<Place, Refusal> {
        let identity = match self.granted.get(&lease.slot()) {
            Some(identity) => identity.clone(),
            None => match self.registry.leases.standing(lease) {
                Standing::Live(instance) | Standing::Fenced(instance) => {
                    (Arc::clone(&instance.service), instance.id.clone())
                }
                Standing::Unknown => return Err(Refusal::NoSuchLease(lease)),
            },
        };
        match self.place(&identity.0, &identity.1) {
            Some(place) if place.lease == lease => Ok(place),
            // The slot's identity lives under another lease: this one was fenced off, by the plan
            // or before, unless it belonged to somebody else. In another slot the identity is new:
            // the plan removed it in between.
            Some(place)
                if place.lease.slot() == lease.slot()
                    && !matches!(self.registry.leases.standing(lease), Standing::Unknown) =>
            {
                Err(Refusal::Fenced(lease))
            }
            _ => Err(Refusal::NoSuchLease(lease)),
        }
    }
}
