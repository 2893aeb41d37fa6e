//! The one task that changes the registry. Each turn takes what waits (commands, and leases that
//! ran out), plans all of it, commits it at once, absorbs and publishes it, and answers.

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

/// Commands of one turn at most: bounds the size of a commit.
const BATCH_COMMANDS_MAX: usize = 1024;
/// Leases that one turn looks at at most: bounds how long expiries hold up commands.
const BATCH_EXPIRIES_MAX: usize = 256;
/// How often the expiry wheel moves.
const WHEEL_INTERVAL: Duration = Duration::from_millis(10);
/// The longest that lies between two turns where the server runs. Beyond it, it stood still: it was
/// stopped, suspended, starved, or waited for the store.
const STALL_MIN_MS: u64 = 100;
/// How long heartbeats that waited for the server may take to be read before anybody is judged.
const CATCH_UP_MS: u64 = 50;

/// How long writes are refused after the store failed, until it is tried again.
const STORE_RETRY_MS: u64 = 1_000;

/// What the worker is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// To make a change.
    Change(Command, Reply<Outcome>),
    /// For an image of what the store keeps.
    Backup(Reply<Backup>),
}

/// Who waits for an answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

pub(super) struct Worker<S> {
    registry: Registry,
    store: S,
    shared: Arc<PublishedState>,
    requests: mpsc::Receiver<Request>,
    /// Why the store failed last, and until when it is left alone for that.
    store_failure: Option<(StoreError, Tick)>,
    /// When the latest turn began.
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

    /// Works until it is stopped; what waits then is answered first.
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
                        // Nobody is left who could ask.
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

    /// One way for everything: plan, commit, absorb, publish, answer. Says whether more leases are
    /// due.
    async fn run_batch(&mut self, requests: Vec<Request>) -> bool {
        let now = self.shared.clock.now();
        self.detect_stall(now.tick);
        let changes = self.send_backups(requests);
        if let Some((error, retry)) = &self.store_failure
            && now.tick < *retry
        {
            // Nobody is judged either: nothing could come of it.
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
            // Never refused: the lease holds an instance or has ended otherwise.
            let _enforced = plan.decide(Command::Enforce(*due));
        }
        let mut answers: Vec<PendingReply> = Vec::with_capacity(changes.len());
        for (command, reply) in changes {
            answers.push((reply, plan.decide(command)));
        }
        let transitions = plan.into_transitions();
        self.pauses.after(transitions.len(), self.shared.clock);
        match self.commit(&transitions).await {
            Ok(()) => {
                let (changes, unlogged) = self.publish(transitions);
                for (reply, answer) in answers {
                    // Whoever asked may have gone away.
                    let _gone = reply.send(answer.map_err(EngineError::Refused));
                }
                log_changes(&changes, unlogged, self.registry.revision());
            }
            Err(error) => self.revert(&due_leases, answers, &error),
        }
        more_due
    }

    /// Gives images of what is committed to those who ask for one; returns the changes that are asked
    /// for.
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

    /// A turn that comes late means that the server stood still, which is not the instances' fault.
    fn detect_stall(&mut self, now: Tick) {
        let before = mem::replace(&mut self.batch_started_at, now);
        let stall_ms = now.0.saturating_sub(before.0);
        if stall_ms > STALL_MIN_MS && !waypost_core::failpoint::planted("pause-unseen") {
            warn!(stall_ms, "the server stood still, every lease is moved by as much");
            self.registry.record_stall(before, Tick(now.0 + CATCH_UP_MS));
        }
    }

    async fn commit(&mut self, transitions: &[Transition]) -> Result<(), StoreError> {
        // One that failed has to prove that it works, with nothing to write as well.
        if transitions.is_empty() && self.store_failure.is_none() {
            return Ok(());
        }
        let committed = self.store.commit(transitions).await;
        // Each said once, not for each batch.
        match (&committed, self.store_failure.is_some()) {
            (Ok(()), true) => info!("writes are taken again"),
            (Err(error), false) => warn!(%error, "writes are refused"),
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

    /// Leaves everything as it was before the turn. Answers may speak of a state that will not be,
    /// so each of them is the store's error.
    fn revert(&mut self, due_leases: &[Due], answers: Vec<PendingReply>, error: &StoreError) {
        self.registry.reinstate(due_leases, self.shared.clock.tick());
        reject(answers.into_iter().map(|(reply, _)| reply), error);
    }

    /// The order matters: log and directory before the position that promises them, the position
    /// before the signals that make watches look. Returns the changes to tell one by one in the log,
    /// and how many more there were.
    fn publish(&mut self, transitions: Vec<Transition>) -> (Vec<Arc<Change>>, usize) {
        // The lease begins now, not before a long commit.
        let now = self.shared.clock.tick();
        let revision = self.registry.revision();
        // In the order of their first changes, each once.
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

    /// Adds changes to the log. Returns the services of removals that fell off its old end.
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
