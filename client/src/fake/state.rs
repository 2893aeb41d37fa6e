//! What a registry holds, and what its watchers are to hear of it. Pure: no clock, no socket. It must
//! never number two changes alike, nor tell what did not change.

use std::collections::{BTreeMap, VecDeque, vec_deque};

use tonic::Status;

use super::fields;
use crate::proto::{
    self, Change, ChangeKind, ChangeReason, Cursor, DeregisterRequest, DeregisterResponse,
    Instance, RegisterRequest, RegisterResponse, UpdateRequest, UpdateResponse, WatchRequest,
    WatchResponse, watch_response::Event,
};

/// How many changes a watch can be behind and still go on; further behind it begins anew.
const LOG_MAX: usize = 1_024;
/// How many instances one part of a snapshot carries: under 4 MiB, however large they are.
const PART_MAX: usize = 128;
const NAMESPACE_DEFAULT: &str = "default";
const WEIGHT_DEFAULT: u32 = 100;

/// A registry, all of it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// How often it lost its memory.
    histories: u64,
    revision: u64,
    held: BTreeMap<Identity, Held>,
    /// Of each lease that a held identity has or had, whose it is.
    leases: BTreeMap<u64, Identity>,
    lease_last: u64,
    /// The latest changes: the last one made `revision`.
    log: VecDeque<Change>,
    /// How many requests carried leases to renew.
    pub(super) heartbeats: u64,
    /// How many watches are open.
    pub(super) watchers: usize,
}

/// What tells an instance from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    namespace: String,
    service: String,
    id: String,
}

#[derive(Debug)]
struct Held {
    instance: Instance,
    lease_id: u64,
}

/// What a watch is about.
#[derive(Debug)]
pub(super) struct Scope {
    namespace: String,
    /// None are all.
    services: Vec<String>,
}

impl Identity {
    pub(super) fn new(namespace: &str, service: &str, id: &str) -> Self {
        let namespace = named(namespace);
        Self { namespace, service: service.to_owned(), id: id.to_owned() }
    }
}

impl Scope {
    pub(super) fn of(request: &WatchRequest) -> Self {
        Self { namespace: named(&request.namespace), services: request.services.clone() }
    }

    /// All instances of one service.
    pub(super) fn service(namespace: &str, service: &str) -> Self {
        Self { namespace: named(namespace), services: vec![service.to_owned()] }
    }

    fn covers(&self, instance: &Instance) -> bool {
        self.namespace == instance.namespace
            && (self.services.is_empty() || self.services.contains(&instance.service))
    }
}

/// Nothing means the default one.
fn named(namespace: &str) -> String {
    if namespace.is_empty() { NAMESPACE_DEFAULT.to_owned() } else { namespace.to_owned() }
}

impl State {
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { history_id: format!("fake-{}", self.histories), revision: self.revision }
    }

    /// Loses its memory: a new history, with nothing in it. Leases are not granted twice all the same.
    pub(super) fn forget(&mut self) {
        *self = Self {
            histories: self.histories + 1,
            lease_last: self.lease_last,
            heartbeats: self.heartbeats,
            watchers: self.watchers,
            ..Self::default()
        };
    }

    pub(super) fn register(
        &mut self,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, Status> {
        let ttl = fields::registration(&request)?;
        self.lease_last += 1;
        let lease_id = self.lease_last;
        let instance = complete(request.instance.unwrap_or_default(), lease_id);
        let identity = Identity::new(&instance.namespace, &instance.service, &instance.id);
        let instance = self.admit(&identity, instance);
        self.held.insert(identity.clone(), Held { instance: instance.clone(), lease_id });
        self.leases.insert(lease_id, identity);
        Ok(RegisterResponse {
            instance: Some(instance),
            lease_id,
            ttl: ttl.try_into().ok(),
            heartbeat_interval: (ttl / 3).try_into().ok(),
            cursor: Some(self.cursor()),
        })
    }

    /// The instance as it is held from now on.
    fn admit(&mut self, identity: &Identity, mut instance: Instance) -> Instance {
        let Some(before) = self.held.get(identity) else {
            return self.commit(ChangeKind::Added, ChangeReason::Unspecified, instance);
        };
        instance.created_revision = before.instance.created_revision;
        instance.modified_revision = before.instance.modified_revision;
        if instance == before.instance {
            return instance;
        }
        self.commit(ChangeKind::Updated, ChangeReason::Replaced, instance)
    }

    /// Renews leases, and gives those that are not known.
    pub(super) fn renew(&mut self, lease_ids: &[u64]) -> Vec<u64> {
        self.heartbeats += 1;
        lease_ids.iter().filter(|lease_id| self.leased(**lease_id).is_err()).copied().collect()
    }

    pub(super) fn update(&mut self, request: UpdateRequest) -> Result<UpdateResponse, Status> {
        let UpdateRequest { lease_id, namespace, service, id, .. } = &request;
        let identity = self.target(*lease_id, Identity::new(namespace, service, id))?;
        let held = self.held.get(&identity).ok_or_else(no_such_instance)?;
        let (before, lease_id) = (held.instance.clone(), held.lease_id);
        let mut instance = fields::updated(&before, request)?;
        if instance != before {
            instance = self.commit(ChangeKind::Updated, ChangeReason::Unspecified, instance);
        }
        self.held.insert(identity, Held { instance: instance.clone(), lease_id });
        Ok(UpdateResponse { instance: Some(instance), cursor: Some(self.cursor()) })
    }

    pub(super) fn deregister(
        &mut self,
        request: &DeregisterRequest,
    ) -> Result<DeregisterResponse, Status> {
        let DeregisterRequest { lease_id, namespace, service, id } = request;
        let identity = self.target(*lease_id, Identity::new(namespace, service, id))?;
        self.remove(&identity, ChangeReason::Deregistered);
        Ok(DeregisterResponse { cursor: Some(self.cursor()) })
    }

    /// Removes an instance and its leases, and gives it as it was last; `None` where it is not there.
    pub(super) fn remove(&mut self, identity: &Identity, reason: ChangeReason) -> Option<Instance> {
        let held = self.held.remove(identity)?;
        self.leases.retain(|_, whose| whose != identity);
        Some(self.commit(ChangeKind::Removed, reason, held.instance))
    }

    /// What is held of `scope`, in order.
    pub(super) fn instances(&self, scope: &Scope) -> Vec<Instance> {
        let all = self.held.values().map(|held| &held.instance);
        all.filter(|instance| scope.covers(instance)).cloned().collect()
    }

    /// What a watcher of `scope` that stands at `position` has to hear; it stands at the present then.
    pub(super) fn tell(&self, scope: &Scope, position: &mut Option<Cursor>) -> Vec<WatchResponse> {
        let now = self.cursor();
        let events = match position.replace(now.clone()).and_then(|at| self.changes_after(&at)) {
            Some(changes) => {
                let told = |change: &&Change| {
                    change.instance.as_ref().is_some_and(|instance| scope.covers(instance))
                };
                let changes: Vec<Change> = changes.filter(told).cloned().collect();
                let news = !changes.is_empty();
                news.then_some(Event::Changes(proto::Changes { changes })).into_iter().collect()
            }
            None => parts(&self.instances(scope)),
        };
        let response = |event| WatchResponse { cursor: Some(now.clone()), event: Some(event) };
        events.into_iter().map(response).collect()
    }

    /// `None` where the log does not go back to `position`, or has never been there.
    fn changes_after(&self, position: &Cursor) -> Option<vec_deque::Iter<'_, Change>> {
        let same_history = position.history_id == self.cursor().history_id;
        let behind = self.revision.checked_sub(position.revision).filter(|_| same_history)?;
        let known = usize::try_from(behind).ok().filter(|behind| *behind <= self.log.len())?;
        Some(self.log.range(self.log.len() - known..))
    }

    /// Which identity is meant: by its lease, or by itself where there is none.
    fn target(&self, lease_id: u64, identity: Identity) -> Result<Identity, Status> {
        if lease_id != 0 {
            return self.leased(lease_id).cloned();
        }
        if self.held.contains_key(&identity) { Ok(identity) } else { Err(no_such_instance()) }
    }

    /// Whose lease it is.
    fn leased(&self, lease_id: u64) -> Result<&Identity, Status> {
        let no_such_lease = || Status::not_found("no such lease");
        let identity = self.leases.get(&lease_id).ok_or_else(no_such_lease)?;
        match self.held.get(identity) {
            Some(held) if held.lease_id == lease_id => Ok(identity),
            _ => Err(Status::failed_precondition("the lease is fenced off")),
        }
    }

    /// Numbers a change and notes it.
    fn commit(
        &mut self,
        kind: ChangeKind,
        reason: ChangeReason,
        mut instance: Instance,
    ) -> Instance {
        self.revision += 1;
        instance.modified_revision = self.revision;
        if kind == ChangeKind::Added {
            instance.created_revision = self.revision;
        }
        self.log.push_back(Change {
            kind: kind.into(),
            instance: Some(instance.clone()),
            reason: reason.into(),
            revision: self.revision,
        });
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
        }
        instance
    }
}

fn no_such_instance() -> Status {
    Status::not_found("no such instance")
}

/// With the defaults of what it does not say, and without what is not its to say.
fn complete(mut instance: Instance, lease_id: u64) -> Instance {
    instance.namespace = named(&instance.namespace);
    if instance.id.is_empty() {
        instance.id = format!("made-{lease_id}");
    }
    if instance.status == 0 {
        instance.set_status(proto::Status::Up);
    }
    instance.weight.get_or_insert(WEIGHT_DEFAULT);
    Instance { created_revision: 0, modified_revision: 0, registered_at: None, ..instance }
}

/// A snapshot in parts; of nothing in one that is empty.
fn parts(instances: &[Instance]) -> Vec<Event> {
    let count = instances.len().div_ceil(PART_MAX).max(1);
    let part = |index: usize| {
        let chunk = instances.chunks(PART_MAX).nth(index).unwrap_or_default();
        Event::Snapshot(proto::Snapshot { instances: chunk.to_vec(), last: index + 1 == count })
    };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests;
