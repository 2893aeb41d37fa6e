//! The registry at work: one task that makes changes, and handles through which everything else
//! asks for changes, reads, and follows. Reads and renewals never wait for the task.

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
pub use watch::{Subjects, Watch, WatchEvent, WatchedChange};

use crate::{
    clock::Clock,
    model::{
        Content, Cursor, HistoryId, InstanceId, LeaseTerms, Limits, Name, Revision, ServiceKey,
    },
    registry::{
        ChangeLog, Command, LeaseTable, Outcome, Patch, ProtectedNamespace, Refusal, Registry,
        Service, Target,
    },
    store::{Backup, Store, StoreError, StoredState},
};
use directory::Directory;
use signals::Signals;
use worker::{Reply, Request, Worker};

/// Suspects that one command removes at most: bounds the size of a commit.
const RELEASE_BATCH_MAX: usize = 1024;

/// The engine's handle: cheap to clone, usable from any task.
#[derive(Debug, Clone)]
pub struct Engine {
    mailbox: mpsc::Sender<Request>,
    shared: Arc<PublishedState>,
}

/// What the worker publishes and everyone reads.
#[derive(Debug)]
struct PublishedState {
    clock: Clock,
    history: HistoryId,
    store: &'static str,
    leases: Arc<LeaseTable>,
    directory: Directory,
    log: RwLock<ChangeLog>,
    /// Every change up to here is in the log and in the directory.
    published: AtomicU64,
    instances: AtomicUsize,
    watches: AtomicUsize,
    /// In order of their namespaces.
    protected: RwLock<Vec<ProtectedNamespace>>,
    /// Why writes are refused, while they are.
    store_failure: latest::Sender<Option<StoreError>>,
    signals: Signals,
}

impl PublishedState {
    fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }
}

/// Why the engine does not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineError {
    /// The registry refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store could not keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many writes wait already.
    #[error("overloaded: {0} writes wait already")]
    Overloaded(usize),
    /// The engine has stopped.
    #[error("the server is shutting down")]
    Stopped,
}

/// How the registry stands.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// The position.
    pub cursor: Cursor,
    /// How many instances there are; each has one live lease.
    pub instances: usize,
    /// How many services have instances.
    pub services: usize,
    /// How many watches are open.
    pub watches: usize,
    /// What keeps the registry.
    pub store: &'static str,
    /// Why it refuses writes, if it does.
    pub store_failure: Option<StoreError>,
    /// The namespaces in which leases that ran out are held, in order of their names.
    pub protected: Vec<ProtectedNamespace>,
}

impl Engine {
    /// Starts upon what the store kept, on a thread of its own: a wave of leases that run out keeps a
    /// core busy for a while, a store may block, and lookups have to go on beside both.
    ///
    /// Errors: there can't be another thread.
    pub fn start<S: Store>(
        store: S,
        loaded: StoredState,
        limits: &Limits,
        clock: Clock,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let StoredState { history, restored } = loaded;
        let (registry, log) =
            Registry::restore(0, fastrand::u64(..), limits, restored, clock.tick());
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

    /// Registers an instance. Cancel safe in so far as a registration whose answer is dropped is
    /// made or not made as a whole.
    pub async fn register(
        &self,
        service: ServiceKey,
        id: InstanceId,
        content: Content,
        terms: LeaseTerms,
    ) -> Result<Outcome, EngineError> {
        self.submit(Command::Register { service, id, content, terms }).await
    }

    /// Changes an instance; by its lease, this also renews the lease.
    pub async fn update(&self, target: Target, patch: Patch) -> Result<Outcome, EngineError> {
        if let Target::Lease(lease) = target {
            // A lease that does not live is refused by the plan, which knows why.
            self.shared.leases.renew(lease, self.shared.clock.tick());
        }
        self.submit(Command::Update { target, patch }).await
    }

    /// Removes an instance.
    pub async fn deregister(&self, target: Target) -> Result<Outcome, EngineError> {
        self.submit(Command::Deregister { target }).await
    }

    /// Removes all suspects of a namespace. Not cancel safe: dropped on the way, it has removed some
    /// of them.
    pub async fn release(&self, namespace: Name) -> Result<Outcome, EngineError> {
        let mut released = 0;
        loop {
            let count_max = RELEASE_BATCH_MAX;
            let command = Command::Release { namespace: namespace.clone(), count_max };
            match self.submit(command).await? {
                Outcome::Released { count, .. } if count == count_max => released += count,
                Outcome::Released { count, revision } => {
                    return Ok(Outcome::Released { count: released + count, revision });
                }
                other => return Ok(other),
            }
        }
    }

    /// An image of everything that is registered, as of the last answered write or later. Cancel
    /// safe.
    pub async fn backup(&self) -> Result<Backup, EngineError> {
        self.request(Request::Backup).await
    }

    async fn submit(&self, command: Command) -> Result<Outcome, EngineError> {
        self.request(|reply| Request::Change(command, reply)).await
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::Overloaded(self.mailbox.max_capacity())
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::Stopped,
        })?;
        answer.await.unwrap_or(Err(EngineError::Stopped))
    }

    /// Renews leases as of now, and returns those that do not live. Yields now and then, so that a
    /// large heartbeat delays nobody. Cancel safe.
    pub async fn renew(&self, leases: &[u64]) -> Vec<u64> {
        let now = self.shared.clock.tick();
        renewals::renew_each(leases, |lease| self.shared.leases.renew(lease, now)).await
    }

    /// Opens a stream over which leases are renewed.
    pub fn keep_alive(&self) -> KeepAlive {
        KeepAlive::open(Arc::clone(&self.shared))
    }

    /// A service and the position at which it is exact. What was answered before is in it.
    pub fn service(&self, key: &ServiceKey) -> (Option<Arc<Service>>, Cursor) {
        // The position first: all changes up to it are in the directory.
        let published = self.shared.published();
        let service = self.shared.directory.service(key);
        let revision =
            service.as_ref().map_or(published, |service| published.max(service.revision));
        (service, self.cursor(revision))
    }

    /// The services of a namespace that have instances, in order of their names, from behind
    /// `after`, at most `count`; the name to go on behind, where there may be more; and the position.
    pub fn services(
        &self,
        namespace: &Name,
        after: Option<&Name>,
        count: usize,
    ) -> (Vec<ServiceSummary>, Option<Name>, Cursor) {
        let cursor = self.cursor(self.shared.published());
        let (page, last) = self.shared.directory.page(namespace, after, count);
        (page, last, cursor)
    }

    /// Follows services from `resume` on, or from a snapshot.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, whose timer the watch joins.
    pub fn watch(
        &self,
        subjects: Subjects,
        filter: crate::model::Filter,
        resume: Option<Cursor>,
    ) -> Watch {
        Watch::open(Arc::clone(&self.shared), subjects, filter, resume)
    }

    /// How the registry stands.
    pub fn status(&self) -> EngineStatus {
        // One lock after the other, never two together.
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

    /// Why the store refuses writes, while it does.
    pub fn store_failure(&self) -> latest::Receiver<Option<StoreError>> {
        self.shared.store_failure.subscribe()
    }

    /// The position as a cursor.
    pub fn cursor(&self, revision: Revision) -> Cursor {
        Cursor { history: self.shared.history, revision }
    }
}

#[cfg(test)]
mod tests;
