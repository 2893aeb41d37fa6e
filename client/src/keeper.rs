//! The task behind a registration: does what the lease says is next, tells it what came of it, and
//! deregisters at the end. It must never decide when to do what: that is the lease's.

use std::{future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::{
    clock,
    lease::{Grant, Lease, Step},
    link::{Link, REQUEST_TIMEOUT, Reached},
    proto::{
        DeregisterRequest, Instance, KeepAliveRequest, KeepAliveResponse, RegisterResponse,
        registry_client::RegistryClient,
    },
    refusal::Verdict,
    register::{CloseError, Held, RegistrationState, Shared, register},
    registration::Registration,
};

/// How long a deregistration is repeated while the registry can't be reached.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// The heartbeat interval where an answer does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// The task's state.
pub(crate) struct Keeper {
    link: Arc<Link>,
    lease: Lease,
    shared: Shared,
    amended: watch::Receiver<Registration>,
    found_lost: watch::Receiver<u64>,
    beats: Option<Beats>,
    stop: CancellationToken,
}

/// An open keep-alive stream.
struct Beats {
    reached: Reached,
    requests: mpsc::Sender<KeepAliveRequest>,
    answers: Streaming<KeepAliveResponse>,
}

impl Keeper {
    pub(crate) fn new(
        link: Arc<Link>,
        lease: Lease,
        shared: Shared,
        stop: CancellationToken,
    ) -> Self {
        let (amended, found_lost) = (shared.desired.subscribe(), shared.found_lost.subscribe());
        Self { link, lease, shared, amended, found_lost, beats: None, stop }
    }

    /// Works until stopped, and then deregisters.
    pub(crate) async fn run(mut self) -> Result<(), CloseError> {
        while !self.stop.is_cancelled() {
            match self.lease.step(clock::now()) {
                Step::Wait(until) => self.wait(until).await,
                Step::Open(lease_id) => self.open(lease_id).await,
                Step::Beat(lease_id) => self.beat(lease_id),
                Step::Break => self.break_off(&Status::deadline_exceeded("no answer in time")),
                // Not given up when stopped: what was granted has to be known to be given back.
                Step::Register => self.register_again().await,
            }
        }
        let closed = self.close().await;
        self.show(RegistrationState::Closed);
        closed
    }

    async fn wait(&mut self, until: clock::Instant) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock::sleep_until(until) => {}
            answer = next_answer(&mut self.beats) => self.hear(answer),
            Ok(()) = self.amended.changed() => self.lease.amended(clock::now()),
            Ok(()) = self.found_lost.changed() => {
                let lost = *self.found_lost.borrow_and_update();
                self.lose(|lease, now| lease.lose(lost, now, fastrand::f64()));
            }
        }
    }

    async fn open(&mut self, lease_id: u64) {
        let limit = self.lease.patience().min(REQUEST_TIMEOUT);
        let stop = self.stop.clone();
        let opened = open(&self.link, lease_id, limit);
        let Some(opened) = stop.run_until_cancelled(opened).await else { return };
        match opened {
            Ok(beats) => {
                self.beats = Some(beats);
                self.lease.beaten(clock::now());
            }
            Err(status) => self.break_off(&status),
        }
    }

    fn beat(&mut self, lease_id: u64) {
        let request = KeepAliveRequest { lease_ids: vec![lease_id] };
        // One heartbeat is on its way at a time, so there is room unless the stream is gone.
        match self.beats.as_ref().map(|beats| beats.requests.try_send(request)) {
            Some(Ok(())) => self.lease.beaten(clock::now()),
            _ => self.break_off(&Status::unavailable("the stream takes no heartbeat")),
        }
    }

    fn hear(&mut self, answer: Result<Option<KeepAliveResponse>, Status>) {
        match answer {
            Ok(Some(answer)) => {
                let unknown = answer.unknown_lease_ids;
                self.lose(|lease, now| lease.answered(&unknown, now, fastrand::f64()));
                if let Some(lease_id) = self.lease.id() {
                    self.show(RegistrationState::Registered { lease_id });
                }
            }
            Ok(None) => self.break_off(&Status::unavailable("the registry ended the stream")),
            Err(status) => self.break_off(&status),
        }
    }

    /// Tells the lease what may be the news that it is lost.
    fn lose(&mut self, tell: impl FnOnce(&mut Lease, clock::Instant)) {
        let before = self.lease.id();
        tell(&mut self.lease, clock::now());
        if before.is_some() && self.lease.id().is_none() {
            self.log("the registry does not know the lease any more: registering again");
            self.show(RegistrationState::Lost);
        }
    }

    fn break_off(&mut self, status: &Status) {
        if let Some(beats) = self.beats.take() {
            self.link.leave(&beats.reached);
        }
        let after = match Verdict::of(status) {
            Verdict::Transient { after } => after,
            // Refused heartbeats are no business of the user's: they are tried again, but slowly.
            Verdict::Refused(_) => Some(REQUEST_TIMEOUT),
        };
        tracing::debug!(code = ?status.code(), reason = status.message(), "heartbeats broke off");
        self.lease.broken(clock::now(), fastrand::f64(), after);
        if let Some(lease_id) = self.lease.id() {
            self.show(RegistrationState::Retrying { lease_id });
        }
    }

    async fn register_again(&mut self) {
        let desired = self.shared.desired.borrow().clone();
        let answer = register(&self.link, &desired).await;
        let now = clock::now();
        match answer {
            Ok(response) => {
                let (grant, instance) = grant(response);
                let lease_id = grant.lease_id;
                self.lease.granted(grant, now);
                self.shared.held.send_replace(Held { lease_id, instance: Arc::new(instance) });
                self.log("registered again");
                self.show(RegistrationState::Registered { lease_id });
            }
            Err(status) => match Verdict::of(&status) {
                Verdict::Transient { after } => {
                    tracing::debug!(code = ?status.code(), "registering again failed");
                    self.lease.unreachable(now, fastrand::f64(), after);
                }
                Verdict::Refused(refusal) => {
                    tracing::warn!(%refusal, "the registry refuses to register the instance again");
                    self.lease.refuse(now, fastrand::f64());
                    self.show(RegistrationState::Refused(refusal));
                }
            },
        }
    }

    async fn close(&mut self) -> Result<(), CloseError> {
        let Some(lease_id) = self.lease.id() else { return Ok(()) };
        let give_up = clock::now() + CLOSING_MAX;
        let mut backoff = self.link.backoff();
        loop {
            let Err(status) = deregister(&self.link, lease_id).await else {
                self.log("deregistered");
                return Ok(());
            };
            // Not there any more, or another's by now: either way it is not ours.
            if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) {
                return Ok(());
            }
            let after = match Verdict::of(&status) {
                Verdict::Refused(refusal) => return Err(CloseError::Refused(refusal)),
                Verdict::Transient { after } => after,
            };
            let delay = backoff.delay(fastrand::f64(), after);
            if clock::now() + delay >= give_up {
                self.log("could not deregister: the lease will run out");
                return Err(CloseError::Unreachable(status));
            }
            clock::sleep(delay).await;
        }
    }

    fn show(&self, state: RegistrationState) {
        self.shared.state.send_if_modified(|shown| {
            let changed = *shown != state;
            *shown = state;
            changed
        });
    }

    fn log(&self, what: &str) {
        let held = self.shared.held.borrow();
        let Instance { namespace, service, id, .. } = &*held.instance;
        tracing::info!(namespace, service, instance = id, "{what}");
    }
}

/// Opens a stream whose first heartbeat is on its way already. `limit` is for the registry's answer.
async fn open(link: &Link, lease_id: u64, limit: Duration) -> Result<Beats, Status> {
    let reached = link.reach().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let (requests, outgoing) = mpsc::channel(2);
    // Not lost where the registry answers the stream's head only after the first request.
    let first = KeepAliveRequest { lease_ids: vec![lease_id] };
    requests.try_send(first).map_err(|_| Status::internal("a new channel has no room"))?;
    let mut registry = RegistryClient::new(reached.connection.clone());
    let opened = clock::within(limit, registry.keep_alive(ReceiverStream::new(outgoing))).await;
    match opened.unwrap_or_else(|| Err(Status::deadline_exceeded("no stream in time"))) {
        Ok(answers) => Ok(Beats { reached, requests, answers: answers.into_inner() }),
        Err(status) => {
            link.leave(&reached);
            Err(status)
        }
    }
}

/// The next answer; never one where no stream is open. Cancel safe.
async fn next_answer(beats: &mut Option<Beats>) -> Result<Option<KeepAliveResponse>, Status> {
    match beats {
        Some(beats) => beats.answers.message().await,
        None => future::pending().await,
    }
}

async fn deregister(link: &Link, lease_id: u64) -> Result<(), Status> {
    let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
    link.attempt(
        |connection| async move { RegistryClient::new(connection).deregister(request).await },
    )
    .await
    .map(drop)
}

/// What an answer to a registration grants, and the instance.
pub(crate) fn grant(response: RegisterResponse) -> (Grant, Instance) {
    let instance = response.instance.unwrap_or_default();
    let interval = response.heartbeat_interval.and_then(|interval| interval.try_into().ok());
    let grant = Grant {
        lease_id: response.lease_id,
        // Never 0, whatever the registry says: that would be a flood.
        heartbeat_interval: interval
            .filter(|interval| *interval >= Duration::from_millis(10))
            .unwrap_or(INTERVAL_DEFAULT),
        origin: (
            response.cursor.map(|cursor| cursor.history_id).unwrap_or_default(),
            instance.created_revision,
        ),
    };
    (grant, instance)
}
