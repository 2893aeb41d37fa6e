//! The engine: one task that changes the registry, and handles to submit changes, read, and watch.
//!
//! Invariant: reads and renewals never wait for the task.

mod directory;
mod log_lines;
mod pauses;
mod renewals;
mod signals;
mod watch;
mod worker;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch as latest};
use waypost_serving::tasks::Tasks;

pub use directory::ServiceSummary;
pub use renewals::KeepAlive;
pub use watch::{Watch, WatchEvent, WatchedChange};

use crate::{
    auth::{
        AccessError, AuditTrail, Caller, CopyStore, DiscoverService, ListNamespace, OperateService,
        Permit, ReadStatus, RegisterService, ReleaseNamespace, WatchScope,
    },
    clock::Clock,
    model::{Content, Cursor, HistoryId, InstanceId, LeaseId, LeaseTerms, Limits, Name, Revision},
    registry::{
        ChangeLog, Command, LeaseSeed, LeaseTable, Outcome, Patch, ProtectedNamespace, Refusal,
        Registry, Service, Target,
    },
    store::{Backup, Store, StoreError, StoredState},
};
use directory::Directory;
use signals::Signals;
use worker::{Reply, Request, Worker};

/// The `reason` of records of registrations in a full namespace.
const TOO_MANY_INSTANCES: &str = "TOO_MANY_INSTANCES";

/// The most suspects that one command removes: bounds the size of a commit.
const RELEASE_BATCH_MAX: usize = 1024;

/// The engine's handle: cheap to clone, usable from any task.
#[derive(Debug, Clone)]
pub struct Engine {
    mailbox: mpsc::Sender<Request>,
    shared: Arc<PublishedState>,
}

/// The state that the worker publishes for all readers.
#[derive(Debug)]
struct PublishedState {
    clock: Clock,
    history: HistoryId,
    store: &'static str,
    leases: Arc<LeaseTable>,
    directory: Directory,
    log: RwLock<ChangeLog>,
    /// The published revision: every change up to it is in the log and in the directory.
    published: AtomicU64,
    resumable: ResumableCursors,
    instances: AtomicUsize,
    watches: AtomicUsize,
    /// Sorted by namespace.
    protected: RwLock<Vec<ProtectedNamespace>>,
    /// The store's error while writes are rejected.
    store_failure: latest::Sender<Option<StoreError>>,
    signals: Signals,
}

/// The first revisions of cursors that watches of a namespace resume from. A cursor does not have
/// the part of the namespace that its reader saw, so it must be of the present policy.
#[derive(Debug)]
struct ResumableCursors {
    /// For a namespace that is seen whole. The policy of an earlier process counts as the present.
    whole: AtomicU64,
    /// For a part.
    part: AtomicU64,
}

impl ResumableCursors {
    /// Those of a process that starts at a revision.
    fn after(revision: Revision) -> Self {
        Self { whole: AtomicU64::new(0), part: AtomicU64::new(revision.0 + 1) }
    }

    /// Makes revisions the first ones.
    fn set(&self, first: u64) {
        self.whole.store(first, Ordering::Release);
        self.part.store(first, Ordering::Release);
    }

    /// Returns whether a watch of this scope resumes from a revision.
    fn include(&self, scope: &WatchScope, revision: Revision) -> bool {
        let first = match scope {
            WatchScope::Services(_) => return true,
            WatchScope::Namespace(_, sight) if sight.is_whole() => &self.whole,
            WatchScope::Namespace(..) => &self.part,
        };
        revision.0 >= first.load(Ordering::Acquire)
    }
}

impl PublishedState {
    fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }
}

/// The error of an engine request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineError {
    /// The caller is over a limit of its own.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The registry refused the command.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed to commit.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue of writes is full.
    #[error("overloaded: the queue of {0} writes is full")]
    Overloaded(usize),
    /// The engine has stopped.
    #[error("the server is shutting down")]
    Stopped,
}

/// The registry's status.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// The published cursor.
    pub cursor: Cursor,
    /// The number of instances; each has one active lease.
    pub instances: usize,
    /// The number of services with instances.
    pub services: usize,
    /// The number of open watches.
    pub watches: usize,
    /// The name of the storage backend.
    pub store: &'static str,
    /// The store's error while writes are rejected.
    pub store_failure: Option<StoreError>,
    /// The namespaces in which mass-expiry protection holds instances, sorted.
    pub protected: Vec<ProtectedNamespace>,
}

impl Engine {
    /// Starts from a store's state, on a thread of its own: a wave of expiries keeps a core busy
    /// for a while and a store may block, and lookups must continue beside both. Lease ids come
    /// from `seed`.
    ///
    /// Errors: the thread can't be started.
    pub fn start<S: Store>(
        store: S,
        loaded: StoredState,
        seed: LeaseSeed,
        limits: &Limits,
        clock: Clock,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let StoredState { history, restored } = loaded;
        let (registry, log) = Registry::restore(0, seed, limits, restored, clock.tick());
        let directory = Directory::default();
        for service in registry.services() {
            directory.put(Arc::clone(service));
        }
        let shared = Arc::new(PublishedState {
            clock,
            history,
            store: store.name(),
            leases: registry.lease_table(),
            directory,
            log: RwLock::new(log),
            published: AtomicU64::new(registry.revision().0),
            resumable: ResumableCursors::after(registry.revision()),
            instances: AtomicUsize::new(registry.instances()),
            watches: AtomicUsize::new(0),
            protected: RwLock::new(registry.protected()),
            store_failure: latest::Sender::default(),
            signals: Signals::default(),
        });
        let (mailbox, requests) = mpsc::channel(limits.queued_writes_max);
        let worker = Worker::new(registry, store, Arc::clone(&shared), requests);
        tasks.spawn_thread("engine", worker.run(tasks.stop().clone()))?;
        Ok(Self { mailbox, shared })
    }

    /// Registers an instance. If the future is dropped, the registration is made entirely or not.
    pub async fn register(
        &self,
        permit: Permit<RegisterService>,
        id: InstanceId,
        content: Content,
        terms: LeaseTerms,
    ) -> Result<Outcome, EngineError> {
        let (act, trail) = permit.into_parts();
        let (service, instances_max) = act.into_parts();
        let command = Command::Register { service, id, content, terms, instances_max };
        self.submit(command, &trail).await
    }

    /// Updates an instance by its identity.
    pub async fn update(
        &self,
        permit: Permit<OperateService>,
        id: InstanceId,
        patch: Patch,
    ) -> Result<Outcome, EngineError> {
        let (act, trail) = permit.into_parts();
        let target = Target::Identity(act.into_service(), id);
        self.submit(Command::Update { target, patch }, &trail).await
    }

    /// Updates the instance of a lease, and renews the lease.
    pub async fn update_leased(
        &self,
        caller: &Caller,
        lease: LeaseId,
        patch: Patch,
    ) -> Result<Outcome, EngineError> {
        let own = self.own_lease(caller, lease);
        // The plan refuses an inactive lease, with the reason.
        self.shared.leases.renew(own, self.shared.clock.tick());
        caller.take_write()?;
        let target = Target::Lease(own);
        let updated = self.submit(Command::Update { target, patch }, caller.trail()).await;
        updated.map_err(|error| of_lease(error, lease))
    }

    /// Removes an instance by its identity.
    pub async fn deregister(
        &self,
        permit: Permit<OperateService>,
        id: InstanceId,
    ) -> Result<Outcome, EngineError> {
        let (act, trail) = permit.into_parts();
        let target = Target::Identity(act.into_service(), id);
        self.submit(Command::Deregister { target }, &trail).await
    }

    /// Removes the instance of a lease.
    pub async fn deregister_leased(
        &self,
        caller: &Caller,
        lease: LeaseId,
    ) -> Result<Outcome, EngineError> {
        let target = Target::Lease(self.own_lease(caller, lease));
        caller.take_write()?;
        let removed = self.submit(Command::Deregister { target }, caller.trail()).await;
        removed.map_err(|error| of_lease(error, lease))
    }

    /// Returns a lease of a service that the caller may register; of another one the lease that
    /// never exists. Either takes the same way through the engine and the same time, so that the
    /// response does not show whether the lease exists.
    fn own_lease(&self, caller: &Caller, lease: LeaseId) -> LeaseId {
        if !caller.judges_leases() {
            return lease;
        }
        let PublishedState { leases, directory, .. } = &*self.shared;
        // A slot that gets another service's lease from here on makes this lease unknown.
        let service = leases.service_in(lease.slot()).and_then(|number| directory.key(number));
        if caller.may_change_lease_of(service.as_deref()) { lease } else { LeaseId::NONE }
    }

    /// Removes all instances that protection holds in a namespace. Not cancel safe: if dropped, it
    /// may have removed some of them.
    pub async fn release(&self, permit: Permit<ReleaseNamespace>) -> Result<Outcome, EngineError> {
        let (act, trail) = permit.into_parts();
        let namespace = act.into_namespace();
        let mut released = 0;
        loop {
            let count_max = RELEASE_BATCH_MAX;
            let command = Command::Release { namespace: namespace.clone(), count_max };
            match self.submit(command, &trail).await? {
                Outcome::Released { count, .. } if count == count_max => released += count,
                Outcome::Released { count, revision } => {
                    return Ok(Outcome::Released { count: released + count, revision });
                }
                other => return Ok(other),
            }
        }
    }

    /// Starts a backup of the state at the last answered write or later. Cancel safe.
    pub async fn backup(&self, _permit: Permit<CopyStore>) -> Result<Backup, EngineError> {
        self.request(Request::Backup).await
    }

    /// Changes the registry, and adds what changed to the record of the call.
    async fn submit(&self, command: Command, trail: &AuditTrail) -> Result<Outcome, EngineError> {
        let outcome = self.request(|reply| Request::Change(command, reply)).await;
        if let Err(EngineError::Refused(Refusal::NamespaceFull { .. })) = &outcome {
            trail.limited(TOO_MANY_INSTANCES);
        }
        let outcome = outcome?;
        match &outcome {
            Outcome::Registered { instance, revision, .. }
            | Outcome::Updated { instance, revision }
            | Outcome::Deregistered { instance, revision } => {
                trail.changed(Some(instance), *revision);
            }
            Outcome::Released { revision, .. } => trail.changed(None, *revision),
            Outcome::Enforced => {}
        }
        Ok(outcome)
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, EngineError> {
        let (reply, response) = oneshot::channel();
        self.mailbox.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::Overloaded(self.mailbox.max_capacity())
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::Stopped,
        })?;
        response.await.unwrap_or(Err(EngineError::Stopped))
    }

    /// Renews leases as of now. Returns those that are not active, or not of a service that the
    /// caller may register. Yields at intervals, so that a large heartbeat does not delay other
    /// tasks. Cancel safe.
    pub async fn renew(&self, caller: &Caller, leases: &[u64]) -> Vec<u64> {
        renewals::renew_each(&self.shared, caller, None, leases).await
    }

    /// Opens a stream that renews leases of the caller.
    pub fn keep_alive(&self, caller: Caller) -> KeepAlive {
        KeepAlive::open(Arc::clone(&self.shared), caller)
    }

    /// Returns a service and the cursor at which it is exact. Includes every write answered before.
    pub fn service(&self, permit: &Permit<DiscoverService>) -> (Option<Arc<Service>>, Cursor) {
        // The revision first: the directory has all changes up to it.
        let published = self.shared.published();
        let service = self.shared.directory.service(permit.act().service());
        let revision =
            service.as_ref().map_or(published, |service| published.max(service.revision));
        (service, self.cursor(revision))
    }

    /// Returns at most `count` visible services of a namespace with instances, sorted by name, from
    /// after `after`; the name to continue after, if there may be more; and the cursor.
    pub fn services(
        &self,
        permit: &Permit<ListNamespace>,
        after: Option<&Name>,
        count: usize,
    ) -> (Vec<ServiceSummary>, Option<Name>, Cursor) {
        let cursor = self.cursor(self.shared.published());
        let list = permit.act();
        let (page, last) = self.shared.directory.page(list.namespace(), list.sight(), after, count);
        (page, last, cursor)
    }

    /// Watches services from `resume` on, or from a snapshot.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, whose timer the watch uses.
    pub fn watch(
        &self,
        permit: Permit<WatchScope>,
        filter: crate::model::Filter,
        resume: Option<Cursor>,
    ) -> Watch {
        Watch::open(Arc::clone(&self.shared), permit.into_watch(), filter, resume)
    }

    /// Puts another policy into force by `replace`. Earlier cursors resume no watch of a namespace:
    /// their readers may have seen another part of it.
    pub(crate) fn replace_policy(&self, replace: impl FnOnce()) {
        // No cursor is good between the two: it may be of either policy.
        self.shared.resumable.set(u64::MAX);
        replace();
        self.shared.resumable.set(self.shared.published().0 + 1);
    }

    /// Returns the registry's status.
    pub fn status(&self, _permit: &Permit<ReadStatus>) -> EngineStatus {
        // One lock after the other, never two at once.
        let store_failure = self.shared.store_failure.borrow().clone();
        let protected = self.shared.protected.read().clone();
        EngineStatus {
            cursor: self.cursor(self.shared.published()),
            instances: self.shared.instances.load(Ordering::Relaxed),
            services: self.shared.directory.services(),
            watches: self.shared.watches.load(Ordering::Relaxed),
            store: self.shared.store,
            store_failure,
            protected,
        }
    }

    /// Watches the store's error, which is set while writes are rejected.
    pub fn store_failure(&self) -> latest::Receiver<Option<StoreError>> {
        self.shared.store_failure.subscribe()
    }

    /// Returns the cursor of a revision.
    pub fn cursor(&self, revision: Revision) -> Cursor {
        Cursor { history: self.shared.history, revision }
    }
}

/// Names the caller's lease in a refusal, which may be of the lease that never exists.
fn of_lease(error: EngineError, lease: LeaseId) -> EngineError {
    match error {
        EngineError::Refused(Refusal::NoSuchLease(_)) => Refusal::NoSuchLease(lease).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
