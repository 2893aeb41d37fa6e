//! The state of a registry in memory: the core's state machine, its change log, and counters that
//! tests read. Pure: the time is an argument, and leases expire only on request.

use std::{collections::BTreeSet, sync::Arc};

use tonic::Status;
use waypost_core::{
    model::{
        Cursor, Filter, HistoryId, InstanceId, LeaseId, LeaseTerms, Limits, Name, RemovalReason,
        Revision, ServiceKey, Tick, WallTime, page_token_after, services_in_page,
    },
    registry::{
        AbsorbedChange, ChangeLog, Command, Due, LeaseSeed, Now, Outcome, Registry, Service, Target,
    },
};

use super::convert::{self, RequestReader};
use crate::proto::{self, watch_response::Event};

/// Instances in one part of a snapshot: less than 4 MiB, whatever their size.
const PART_MAX: usize = 128;
/// The constant time of leases, which never expire by time.
const TICK: Tick = Tick(0);

/// A registry and everything in it.
#[derive(Debug)]
pub(super) struct FakeState {
    limits: Limits,
    registry: Registry,
    log: ChangeLog,
    /// The services that have or had instances.
    services: BTreeSet<Arc<ServiceKey>>,
    history: HistoryId,
    /// The number of histories so far.
    histories: u64,
    /// The number of ids that were made for instances without one.
    ids: u64,
    /// The number of requests with leases to renew.
    pub(super) heartbeats: u64,
    /// The number of open watches.
    pub(super) watchers: usize,
}

/// The services that a watch follows.
#[derive(Debug)]
pub(super) struct WatchSubjects {
    namespace: Name,
    /// Empty: all services of the namespace.
    services: Vec<Name>,
    filter: Filter,
}

impl WatchSubjects {
    fn include(&self, key: &ServiceKey) -> bool {
        self.namespace == key.namespace
            && (self.services.is_empty() || self.services.contains(&key.service))
    }
}

impl FakeState {
    /// Creates an empty registry whose history has this number; histories with other numbers
    /// differ.
    pub(super) fn new(histories: u64) -> Self {
        let limits = Limits::default();
        Self {
            registry: Registry::new(0, LeaseSeed::repeatable(histories), &limits),
            log: ChangeLog::new(Revision::default(), limits.log_changes_max, limits.log_bytes_max),
            services: BTreeSet::new(),
            history: history(histories),
            histories,
            ids: 0,
            heartbeats: 0,
            watchers: 0,
            limits,
        }
    }

    /// Starts a new history without instances and leases.
    pub(super) fn forget(&mut self) {
        let Self { heartbeats, watchers, ids, histories, .. } = *self;
        *self = Self { heartbeats, watchers, ids, ..Self::new(histories + 1) };
    }

    /// Returns the present position.
    pub(super) fn cursor(&self) -> proto::Cursor {
        self.cursor_at(self.registry.revision())
    }

    fn cursor_at(&self, revision: Revision) -> proto::Cursor {
        proto::Cursor { history_id: self.history.to_string(), revision: revision.0 }
    }

    pub(super) fn register(
        &mut self,
        request: &proto::RegisterRequest,
        wall: WallTime,
    ) -> Result<proto::RegisterResponse, Status> {
        let limits = self.limits.clone();
        let mut reader = RequestReader::new(&limits);
        let missing = proto::Instance::default();
        let instance = request.instance.as_ref().unwrap_or(&missing);
        let service = reader.service("instance.", &instance.namespace, &instance.service);
        let id = match instance.id.as_str() {
            "" => Some(self.new_id(wall)),
            id => reader.id("instance.id", id),
        };
        let content = reader.content(instance);
        let terms = reader.terms(request.ttl, request.disconnect_grace);
        let read = (|| Some((service?, id?, content?, terms?)))();
        let (service, id, content, terms) = reader.finish(read)?;
        let register = Command::Register { service, id, content, terms, instances_max: None };
        let Outcome::Registered { instance, lease, revision } = self.run(register, wall)? else {
            return Err(mismatch());
        };
        Ok(proto::RegisterResponse {
            instance: Some(convert::instance(&instance)),
            lease_id: lease.bits(),
            ttl: terms.ttl.try_into().ok(),
            heartbeat_interval: (terms.ttl / LeaseTerms::HEARTBEATS_A_TTL).try_into().ok(),
            cursor: Some(self.cursor_at(revision)),
        })
    }

    /// Renews leases, and returns those that are not active.
    pub(super) fn renew(&mut self, lease_ids: &[u64]) -> Vec<u64> {
        self.heartbeats += 1;
        let table = self.registry.lease_table();
        let renews = |bits: &&u64| table.renew(LeaseId::from_bits(**bits), TICK);
        lease_ids.iter().filter(|bits| !renews(bits)).copied().collect()
    }

    pub(super) fn update(
        &mut self,
        request: &proto::UpdateRequest,
        wall: WallTime,
    ) -> Result<proto::UpdateResponse, Status> {
        let proto::UpdateRequest { lease_id, namespace, service, id, instance, update_mask } =
            request;
        let limits = self.limits.clone();
        let mut reader = RequestReader::new(&limits);
        let target = reader.target(*lease_id, namespace, service, id);
        let missing = proto::Instance::default();
        let patch = reader.patch(instance.as_ref().unwrap_or(&missing), update_mask.as_ref());
        let (target, patch) = reader.finish(target.zip(patch))?;
        let updated = self.run(Command::Update { target, patch }, wall)?;
        let Outcome::Updated { instance, revision } = updated else { return Err(mismatch()) };
        let cursor = Some(self.cursor_at(revision));
        Ok(proto::UpdateResponse { instance: Some(convert::instance(&instance)), cursor })
    }

    pub(super) fn deregister(
        &mut self,
        request: &proto::DeregisterRequest,
        wall: WallTime,
    ) -> Result<proto::DeregisterResponse, Status> {
        let proto::DeregisterRequest { lease_id, namespace, service, id } = request;
        let limits = self.limits.clone();
        let mut reader = RequestReader::new(&limits);
        let target = reader.target(*lease_id, namespace, service, id);
        let target = reader.finish(target)?;
        let removed = self.run(Command::Deregister { target }, wall)?;
        let Outcome::Deregistered { revision, .. } = removed else { return Err(mismatch()) };
        Ok(proto::DeregisterResponse { cursor: Some(self.cursor_at(revision)) })
    }

    pub(super) fn resolve(
        &self,
        request: proto::ResolveRequest,
    ) -> Result<proto::ResolveResponse, Status> {
        let mut reader = RequestReader::new(&self.limits);
        let key = reader.service("", &request.namespace, &request.service);
        let page = reader.page(request.page_size, &request.page_token, key.as_ref());
        let (key, page) = reader.finish(key.zip(page))?;
        let filter = convert::filter(request.filter);
        let after = page.as_ref().and_then(|page| page.after.as_ref());
        let mut matching = self.service(&key).into_iter().flat_map(|service| {
            service.roster.instances().filter(|instance| {
                after.is_none_or(|after| instance.id > *after)
                    && (request.all_statuses || instance.serves())
                    && filter.matches(&instance.content)
            })
        });
        let size = page.as_ref().map_or(usize::MAX, |page| page.size);
        let found: Vec<_> = matching.by_ref().take(size).collect();
        let last = found.last().filter(|_| matching.next().is_some());
        Ok(proto::ResolveResponse {
            next_page_token: last.map(|last| page_token_after(&last.id, &key)).unwrap_or_default(),
            instances: found.into_iter().map(|instance| convert::instance(instance)).collect(),
            cursor: Some(self.cursor()),
        })
    }

    pub(super) fn list_services(
        &self,
        request: &proto::ListServicesRequest,
    ) -> Result<proto::ListServicesResponse, Status> {
        let mut reader = RequestReader::new(&self.limits);
        let namespace = reader.namespace("namespace", &request.namespace);
        let after = match request.page_token.as_str() {
            "" => Some(None),
            token => reader.name("page_token", token).map(Some),
        };
        let (namespace, after) = reader.finish(namespace.zip(after))?;
        let mut services = self.services.iter().filter_map(|key| self.service(key)).filter(|one| {
            one.key.namespace == namespace
                && !one.roster.is_empty()
                && after.as_ref().is_none_or(|after| one.key.service > *after)
        });
        let size = services_in_page(request.page_size);
        let page: Vec<_> = services.by_ref().take(size).map(summary).collect();
        let last = page.last().filter(|_| services.next().is_some());
        Ok(proto::ListServicesResponse {
            next_page_token: last.map(|last| last.name.clone()).unwrap_or_default(),
            services: page,
            cursor: Some(self.cursor()),
        })
    }

    /// Returns the subjects of a watch, and the position that it resumes from.
    pub(super) fn subjects(&self, request: &proto::WatchRequest) -> Result<WatchSubjects, Status> {
        let mut reader = RequestReader::new(&self.limits);
        let namespace = reader.namespace("namespace", &request.namespace);
        let mut services = Vec::with_capacity(request.services.len());
        for (index, service) in request.services.iter().enumerate() {
            services.extend(reader.name(&format!("services[{index}]"), service));
        }
        let namespace = reader.finish(namespace)?;
        Ok(WatchSubjects { namespace, services, filter: convert::filter(request.filter.clone()) })
    }

    /// Returns the messages that bring a watch from `position` to the present, which becomes its
    /// position.
    pub(super) fn messages(
        &self,
        subjects: &WatchSubjects,
        position: &mut Option<proto::Cursor>,
    ) -> Vec<proto::WatchResponse> {
        let before = position.replace(self.cursor());
        let events = match before.and_then(|before| self.changes_since(subjects, &before)) {
            Some(changes) if changes.is_empty() => Vec::new(),
            Some(changes) => vec![Event::Changes(proto::Changes { changes })],
            None => self.snapshot(subjects),
        };
        let message =
            |event| proto::WatchResponse { cursor: Some(self.cursor()), event: Some(event) };
        events.into_iter().map(message).collect()
    }

    /// Returns the changes since a position; `None` if the log does not reach back to it, or never
    /// had it.
    fn changes_since(
        &self,
        subjects: &WatchSubjects,
        position: &proto::Cursor,
    ) -> Option<Vec<proto::Change>> {
        let history = HistoryId::parse(&position.history_id)?;
        let position = Cursor { history, revision: Revision(position.revision) };
        let present = self.registry.revision();
        if position.history != self.history || position.revision > present {
            return None;
        }
        let include =
            |change: &waypost_core::model::Change| subjects.include(&change.instance.service);
        let (entries, _) = self.log.scan(position.revision, present, usize::MAX, include)?;
        let visible = entries.iter().filter_map(|entry| {
            let visibility = subjects.filter.visibility(&entry.change)?;
            Some(convert::change(&entry.change, visibility))
        });
        Some(visible.collect())
    }

    /// Returns the instances of the subjects, in parts; an empty snapshot has one part.
    fn snapshot(&self, subjects: &WatchSubjects) -> Vec<Event> {
        let keys = self.services.iter().filter(|key| subjects.include(key));
        let instances: Vec<_> = keys
            .filter_map(|key| self.service(key))
            .flat_map(|service| service.roster.instances())
            .filter(|instance| subjects.filter.matches(&instance.content))
            .map(|instance| convert::instance(instance))
            .collect();
        let count = instances.len().div_ceil(PART_MAX).max(1);
        let part = |index: usize| {
            let part = instances.chunks(PART_MAX).nth(index).unwrap_or_default();
            Event::Snapshot(proto::Snapshot { instances: part.to_vec(), last: index + 1 == count })
        };
        (0..count).map(part).collect()
    }

    /// Returns the instances of a service in order of their ids.
    pub(super) fn instances(&self, namespace: &str, service: &str) -> Vec<proto::Instance> {
        let mut reader = RequestReader::new(&self.limits);
        let service = reader.service("", namespace, service).and_then(|key| self.service(&key));
        let instances = service.into_iter().flat_map(|service| service.roster.instances());
        instances.map(|instance| convert::instance(instance)).collect()
    }

    /// Removes an instance as its own deregistration does. Returns its last state; `None` if there
    /// is none.
    pub(super) fn leave(
        &mut self,
        namespace: &str,
        service: &str,
        id: &str,
        wall: WallTime,
    ) -> Option<proto::Instance> {
        let (lease, instance) = self.lease(namespace, service, id)?;
        let left = self.run(Command::Deregister { target: Target::Lease(lease) }, wall);
        left.is_ok().then(|| self.removed(instance))
    }

    /// Removes an instance as the expiry of its lease does. Returns its last state; `None` if there
    /// is none.
    pub(super) fn expire(
        &mut self,
        namespace: &str,
        service: &str,
        id: &str,
        wall: WallTime,
    ) -> Option<proto::Instance> {
        let (lease, instance) = self.lease(namespace, service, id)?;
        let expired = Due::Expired { lease, reason: RemovalReason::Expired };
        // If too many leases expire, the first command makes the instance suspect, the second
        // removes it.
        for _ in 0..2 {
            let _enforced = self.run(Command::Enforce(expired), wall);
        }
        Some(self.removed(instance))
    }

    fn removed(&self, instance: proto::Instance) -> proto::Instance {
        proto::Instance { modified_revision: self.registry.revision().0, ..instance }
    }

    fn lease(
        &self,
        namespace: &str,
        service: &str,
        id: &str,
    ) -> Option<(LeaseId, proto::Instance)> {
        let mut reader = RequestReader::new(&self.limits);
        let key = reader.service("", namespace, service)?;
        let (lease, instance) = self.registry.lease(&key, &reader.id("id", id)?)?;
        Some((lease, convert::instance(instance)))
    }

    fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.registry.service(key)
    }

    /// Plans a command, absorbs what it changes, and logs the changes.
    fn run(&mut self, command: Command, wall: WallTime) -> Result<Outcome, Status> {
        let mut plan = self.registry.plan(Now { tick: TICK, wall });
        let outcome = plan.decide(command).map_err(|refusal| convert::refused(&refusal))?;
        for transition in plan.into_transitions() {
            if let Some(absorbed) = self.registry.absorb(transition, TICK) {
                let AbsorbedChange { change, previous } = absorbed;
                self.services.insert(Arc::clone(&change.instance.service));
                for evicted in self.log.append(change, previous) {
                    let key = &evicted.change.instance.service;
                    if self.registry.forget(key, evicted.change.revision()) {
                        self.services.remove(key);
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// Returns a UUID of version 7, from a counter: tests with paused time are repeatable.
    fn new_id(&mut self, wall: WallTime) -> InstanceId {
        self.ids += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        InstanceId::from_uuid(
            uuid::Builder::from_unix_timestamp_millis(wall.0, &random).into_uuid(),
        )
    }
}

fn history(number: u64) -> HistoryId {
    let text = uuid::Builder::from_random_bytes(u128::from(number).to_be_bytes()).into_uuid();
    HistoryId::parse(&text.to_string()).expect("the text of a UUID")
}

fn summary(service: &Arc<Service>) -> proto::ServiceSummary {
    proto::ServiceSummary {
        namespace: service.key.namespace.to_string(),
        name: service.key.service.to_string(),
        instances: u32::try_from(service.roster.len()).unwrap_or(u32::MAX),
        up: u32::try_from(service.roster.serving()).unwrap_or(u32::MAX),
    }
}

fn mismatch() -> Status {
    Status::internal("the registry's outcome does not fit the request")
}

#[cfg(test)]
mod tests;
