//! The one task that changes the registry, in batches. A batch takes the waiting commands and due
//! leases, plans them, commits once, absorbs and publishes the result, and answers.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    select,
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    EngineError, PublishedState,
    log_lines::{LineLimiter, log_changes, log_protection},
    pauses::Pauses,
};
use crate::{
    model::{Change, ChangeKind, Name, Revision, ServiceKey, Tick},
    registry::{AbsorbedChange, Command, Due, Outcome, Refusal, Registry, Transition},
    store::{Backup, Store, StoreError},
};

/// The most commands of a batch: bounds the size of a commit.
const BATCH_COMMANDS_MAX: usize = 1024;
/// The most due leases that a batch examines: bounds how long expiries delay commands.
const BATCH_EXPIRIES_MAX: usize = 256;
/// The interval of the expiry wheel.
const WHEEL_INTERVAL: Duration = Duration::from_millis(10);
/// The longest time between two batches of a running server. A longer gap is a stall: the process
/// was stopped, suspended or starved, or waited for the store.
const STALL_MIN_MS: u64 = 100;
/// The time after a stall for queued heartbeats to be read before any lease expires.
const CATCH_UP_MS: u64 = 50;

/// The time that writes are rejected after the store failed, before the next attempt.
const STORE_RETRY_MS: u64 = 1_000;

/// A request to the worker.
#[derive(Debug)]
pub(super) enum Request {
    /// Change the registry.
    Change(Command, Reply<Outcome>),
    /// Start a backup of the store.
    Backup(Reply<Backup>),
}

/// The sender of a response.
pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

pub(super) struct Worker<S> {
    registry: Registry,
    store: S,
    shared: Arc<PublishedState>,
    requests: mpsc::Receiver<Request>,
    /// The store's last error, and the time of the next attempt.
    store_failure: Option<(StoreError, Tick)>,
    /// The start of the latest batch.
    batch_started_at: Tick,
    line_limiter: LineLimiter,
    pauses: Pauses,
}

type PendingReply = (Reply<Outcome>, Result<Outcome, Refusal>);

impl<S: Store> Worker<S> {
    pub(super) fn new(
        registry: Registry,
        store: S,
        shared: Arc<PublishedState>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        let batch_started_at = shared.clock.tick();
        Self {
            registry,
            store,
            shared,
            requests,
            store_failure: None,
            batch_started_at,
            line_limiter: LineLimiter::default(),
            pauses: Pauses::default(),
        }
    }

    /// Runs batches until stopped. Answers all waiting requests before it returns.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut wheel = interval(WHEEL_INTERVAL);
        wheel.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        let mut more_due = false;
        loop {
            if more_due {
                yield_now().await;
            } else {
                select! {
                    biased;
                    () = stop.cancelled() => break,
                    _ = wheel.tick() => {}
                    received = self.requests.recv_many(&mut waiting, BATCH_COMMANDS_MAX) => {
                        // The last handle is gone.
                        if received == 0 { break }
                    }
                }
            }
            self.receive_waiting(&mut waiting);
            more_due = self.run_batch(mem::take(&mut waiting)).await;
        }
        self.requests.close();
        self.receive_waiting(&mut waiting);
        while !waiting.is_empty() {
            self.run_batch(mem::take(&mut waiting)).await;
            self.receive_waiting(&mut waiting);
        }
    }

    fn receive_waiting(&mut self, waiting: &mut Vec<Request>) {
        while waiting.len() < BATCH_COMMANDS_MAX
            && let Ok(request) = self.requests.try_recv()
        {
            waiting.push(request);
        }
    }

    /// Runs one batch: plan, commit, absorb, publish, answer. Returns whether more leases are due.
    async fn run_batch(&mut self, requests: Vec<Request>) -> bool {
        let now = self.shared.clock.now();
        self.detect_stall(now.tick);
        let changes = self.send_backups(requests);
        if let Some((error, retry)) = &self.store_failure
            && now.tick < *retry
        {
            // No lease expires either: the removal could not be committed.
            reject(changes.into_iter().map(|(_, reply)| reply), error);
            return false;
        }
        let (due_leases, more_due) = self.registry.take_due(now.tick, BATCH_EXPIRIES_MAX);
        if changes.is_empty() && due_leases.is_empty() && self.store_failure.is_none() {
            return more_due;
        }
        let mut plan = self.registry.plan(now);
        for (step, due) in due_leases.iter().enumerate() {
            self.pauses.after(step, self.shared.clock);
            // Never refused: the lease has an instance, or ended in another way.
            let _enforced = plan.decide(Command::Enforce(*due));
        }
        let mut replies: Vec<PendingReply> = Vec::with_capacity(changes.len());
        for (command, reply) in changes {
            replies.push((reply, plan.decide(command)));
        }
        let transitions = plan.into_transitions();
        self.pauses.after(transitions.len(), self.shared.clock);
        match self.commit(&transitions).await {
            Ok(()) => {
                let (changes, unlogged) = self.publish(transitions);
                for (reply, result) in replies {
                    // The caller may have dropped its request.
                    let _gone = reply.send(result.map_err(EngineError::Refused));
                }
                log_changes(&changes, unlogged, self.registry.revision());
            }
            Err(error) => self.revert(&due_leases, replies, &error),
        }
        more_due
    }

    /// Starts the requested backups of the committed state. Returns the requested changes.
    fn send_backups(&self, requests: Vec<Request>) -> Vec<(Command, Reply<Outcome>)> {
        let mut changes = Vec::with_capacity(requests.len());
        for request in requests {
            match request {
                Request::Change(command, reply) => changes.push((command, reply)),
                Request::Backup(reply) => {
                    let _gone = reply.send(self.store.backup().map_err(EngineError::Store));
                }
            }
        }
        changes
    }

    /// Extends every lease if the batch is late: the server stalled, not the instances.
    fn detect_stall(&mut self, now: Tick) {
        let before = mem::replace(&mut self.batch_started_at, now);
        let stall_ms = now.0.saturating_sub(before.0);
        if stall_ms > STALL_MIN_MS && !waypost_core::failpoint::planted("pause-unseen") {
            warn!(stall_ms, "server stalled; extended every lease by the length of the stall");
            self.registry.record_stall(before, Tick(now.0 + CATCH_UP_MS));
        }
    }

    async fn commit(&mut self, transitions: &[Transition]) -> Result<(), StoreError> {
        // A failed store must prove that it works, even with nothing to write.
        if transitions.is_empty() && self.store_failure.is_none() {
            return Ok(());
        }
        let committed = self.store.commit(transitions).await;
        // Logged once, not for each batch.
        match (&committed, self.store_failure.is_some()) {
            (Ok(()), true) => info!("store recovered, accepting writes"),
            (Err(error), false) => warn!(%error, "store failed, rejecting writes"),
            _ => {}
        }
        let retry = Tick(self.shared.clock.tick().0 + STORE_RETRY_MS);
        self.store_failure = committed.as_ref().err().map(|error| (error.clone(), retry));
        self.shared.store_failure.send_if_modified(|failure| {
            let after = committed.as_ref().err().cloned();
            let changes = *failure != after;
            *failure = after;
            changes
        });
        committed
    }

    /// Restores the state before the batch. Every response is the store's error: the planned
    /// outcomes describe a state that was not committed.
    fn revert(&mut self, due_leases: &[Due], replies: Vec<PendingReply>, error: &StoreError) {
        self.registry.reinstate(due_leases, self.shared.clock.tick());
        reject(replies.into_iter().map(|(reply, _)| reply), error);
    }

    /// Publishes transitions in this order: log and directory before the revision that promises
    /// them, the revision before the signals that wake watches. Returns the changes to log in lines
    /// of their own, and the number of all others.
    fn publish(&mut self, transitions: Vec<Transition>) -> (Vec<Arc<Change>>, usize) {
        // Leases start now, not before a long commit.
        let now = self.shared.clock.tick();
        let revision = self.registry.revision();
        // Unique, in the order of their first changes.
        let mut changed_services: Vec<Arc<ServiceKey>> = Vec::new();
        let mut absorbed = Vec::with_capacity(transitions.len());
        for (step, transition) in transitions.into_iter().enumerate() {
            self.pauses.after(step, self.shared.clock);
            let Some(AbsorbedChange { change, previous }) = self.registry.absorb(transition, now)
            else {
                continue;
            };
            if previous <= revision {
                changed_services.push(Arc::clone(&change.instance.service));
            }
            absorbed.push((change, previous));
        }
        let logged = self.line_limiter.grant(absorbed.len(), now);
        let unlogged = absorbed.len() - logged;
        let changes = absorbed[..logged].iter().map(|(change, _)| Arc::clone(change)).collect();
        let ended = self.append(absorbed);
        for key in &changed_services {
            if let Some(service) = self.registry.service(key) {
                self.shared.directory.put(Arc::clone(service));
            }
        }
        for (key, evicted) in ended {
            if self.registry.forget(&key, evicted) {
                self.shared.directory.forget(&key);
            }
        }
        self.shared.instances.store(self.registry.instances(), Ordering::Relaxed);
        let protected = self.registry.protected();
        let before = mem::replace(&mut *self.shared.protected.write(), protected.clone());
        log_protection(&before, &protected);
        self.shared.published.store(self.registry.revision().0, Ordering::Release);
        self.signal(&changed_services);
        (changes, unlogged)
    }

    /// Appends changes to the log. Returns the services of removals that the log dropped.
    fn append(&self, changes: Vec<(Arc<Change>, Revision)>) -> Vec<(Arc<ServiceKey>, Revision)> {
        let mut ended = Vec::new();
        let mut log = self.shared.log.write();
        for (change, previous) in changes {
            for entry in log.append(change, previous) {
                if matches!(entry.change.kind, ChangeKind::Removed(_)) {
                    let revision = entry.change.revision();
                    ended.push((Arc::clone(&entry.change.instance.service), revision));
                }
            }
        }
        ended
    }

    fn signal(&self, changed_services: &[Arc<ServiceKey>]) {
        let mut namespaces: BTreeSet<&Name> = BTreeSet::new();
        for key in changed_services {
            self.shared.signals.wake_service(key);
            namespaces.insert(&key.namespace);
        }
        for namespace in namespaces {
            self.shared.signals.wake_namespace(namespace);
        }
    }
}

fn reject(replies: impl Iterator<Item = Reply<Outcome>>, error: &StoreError) {
    for reply in replies {
        let _gone = reply.send(Err(EngineError::Store(error.clone())));
    }
}
