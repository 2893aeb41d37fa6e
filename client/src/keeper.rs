//! The task behind a registration: does what the lease says is next, tells it what came of it, and
//! deregisters at the end. It must never decide when to do what: that is the lease's.

use std::{future, ops::RangeInclusive, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::{
    clock,
    enrolment::{Enrolment, leave},
    lease::{Fate, Grant, Lease, Step},
    link::{Link, Missed, REQUEST_TIMEOUT, Reached},
    outage::Outage,
    proto::{
        DeregisterRequest, Instance, KeepAliveRequest, KeepAliveResponse, RegisterResponse,
        registry_client::RegistryClient,
    },
    refusal::{Refusal, Verdict, told},
    registration::Registration,
    standing::{CloseError, Held, RegisterError, RegistrationState, Shared},
};

/// The heartbeat interval where an answer does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// The shortest and the longest heartbeat interval that is believed. Shorter would be a flood; the
/// longest TTL is 5 min.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);

/// The task's state.
pub(crate) struct Keeper {
    link: Arc<Link>,
    lease: Lease,
    shared: Shared,
    amended: watch::Receiver<Registration>,
    found_lost: watch::Receiver<u64>,
    beats: Option<Beats>,
    enrolment: Enrolment,
    outage: Outage,
    stop: CancellationToken,
}

/// An open keep-alive stream.
struct Beats {
    reached: Reached,
    requests: mpsc::Sender<KeepAliveRequest>,
    answers: Streaming<KeepAliveResponse>,
}

/// Registers, says so through `answer`, keeps the registration until stopped, and deregisters.
pub(crate) async fn stay(
    link: Arc<Link>,
    mut registration: Registration,
    stop: CancellationToken,
    answer: oneshot::Sender<Result<Shared, RegisterError>>,
) -> Result<(), CloseError> {
    let mut enrolment = Enrolment::new(Arc::clone(&link), &mut registration);
    let response = match enrolment.until_answered(&registration, &stop).await {
        Some(Ok(response)) => response,
        unregistered => {
            // Where nobody waits any more, nobody is to be told.
            if let Some(Err(refusal)) = unregistered {
                let _ = answer.send(Err(refusal.into()));
            }
            return enrolment.take_back(&registration.instance).await;
        }
    };
    let (grant, instance) = grant(response, &registration);
    // However it was named: registering again is registering the same.
    registration.instance.id.clone_from(&instance.id);
    let lease_id = grant.lease_id;
    let shared = Shared {
        desired: watch::Sender::new(registration),
        held: watch::Sender::new(Held { lease_id, instance: Arc::new(instance) }),
        state: watch::Sender::new(RegistrationState::Registered { lease_id }),
        found_lost: watch::Sender::new(0),
    };
    let keeper = Keeper::new(link, enrolment, grant, shared.clone(), stop);
    keeper.log("registered");
    // Where nobody waits any more, the keeper was stopped, and deregisters.
    let _ = answer.send(Ok(shared));
    keeper.run().await
}

impl Keeper {
    fn new(
        link: Arc<Link>,
        enrolment: Enrolment,
        grant: Grant,
        shared: Shared,
        stop: CancellationToken,
    ) -> Self {
        let (amended, found_lost) = (shared.desired.subscribe(), shared.found_lost.subscribe());
        let lease = Lease::new(grant, clock::now(), link.backoff());
        let (beats, outage) = (None, Outage::default());
        Self { link, lease, shared, amended, found_lost, beats, enrolment, outage, stop }
    }

    /// Works until stopped, and then deregisters.
    async fn run(mut self) -> Result<(), CloseError> {
        while !self.stop.is_cancelled() {
            match self.lease.step(clock::now()) {
                Step::Wait(until) => self.wait(until).await,
                Step::Open(lease_id) => self.open(lease_id).await,
                Step::Beat(lease_id) => self.beat(lease_id),
                Step::Break => self.break_off(&Status::deadline_exceeded("no answer in time")),
                Step::Ask(lease_id) => self.ask(lease_id).await,
                Step::Register => self.register_again().await,
            }
        }
        self.close().await
    }

    async fn wait(&mut self, until: clock::Instant) {
        let stop = self.stop.clone();
        // What came before the time was over is heard first: this process itself may have stood still.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            answer = next_answer(&mut self.beats) => self.hear(answer),
            Ok(()) = self.amended.changed() => self.lease.amended(clock::now()),
            Ok(()) = self.found_lost.changed() => {
                let lost = *self.found_lost.borrow_and_update();
                self.lose(|lease, now| lease.lose(lost, now));
            }
            () = clock::sleep_until(until) => {}
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
            Err(missed) => self.broken(&missed),
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
                self.lose(|lease, now| lease.answered(&unknown, now));
                if self.outage.end() {
                    self.log("registry reached again");
                }
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

    /// Gives up the stream, of which `status` tells what is wrong with it.
    fn break_off(&mut self, status: &Status) {
        let Some(beats) = self.beats.take() else {
            return self.lease.broken(clock::now(), fastrand::f64(), None);
        };
        self.link.leave(&beats.reached);
        self.broken(&Missed { peer: beats.reached.peer, status: status.clone() });
    }

    fn broken(&mut self, missed: &Missed) {
        let after = pause(&missed.status);
        self.miss(missed, "heartbeats broke off, trying again");
        self.lease.broken(clock::now(), fastrand::f64(), after);
        if let Some(lease_id) = self.lease.id() {
            self.show(RegistrationState::Retrying { lease_id });
        }
    }

    /// Asks what became of a lost lease. To give it back does nothing where it does not live, and the
    /// answer tells why it doesn't.
    async fn ask(&mut self, lease_id: u64) {
        let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        let asked = self.link.attempt(|connection| async move {
            RegistryClient::new(connection).deregister(request).await
        });
        let Some(answer) = self.stop.run_until_cancelled(asked).await else { return };
        let (now, random) = (clock::now(), fastrand::f64());
        let fate = match answer {
            Ok(_) => Fate::Gone,
            Err(missed) => match missed.status.code() {
                Code::NotFound => Fate::Gone,
                Code::FailedPrecondition => Fate::Fenced,
                _ => {
                    self.miss(&missed, "can't ask about the lost lease yet, trying again");
                    return self.lease.unreachable(now, random, pause(&missed.status));
                }
            },
        };
        self.lease.explained(fate, now, random);
    }

    async fn register_again(&mut self) {
        // Seen: what changes from here on is not in this attempt.
        let desired = self.amended.borrow_and_update().clone();
        let Some(answer) = self.enrolment.attempt(&desired, &self.stop).await else { return };
        let now = clock::now();
        let missed = match answer {
            Ok(response) => {
                let (grant, instance) = grant(response, &desired);
                let lease_id = grant.lease_id;
                self.lease.granted(grant, now);
                self.shared.held.send_replace(Held { lease_id, instance: Arc::new(instance) });
                self.outage.end();
                self.log("registered again");
                self.show(RegistrationState::Registered { lease_id });
                return;
            }
            Err(missed) => missed,
        };
        match Verdict::of(&missed.status) {
            Verdict::Transient { after } => {
                self.miss(&missed, "can't register again yet, trying again");
                self.lease.unreachable(now, fastrand::f64(), after);
            }
            Verdict::Refused(refusal) => {
                self.outage.end();
                self.lease.refuse(now, fastrand::f64());
                self.refused(&missed.peer, refusal);
            }
        }
    }

    /// Shows that the registry refuses, and says so where that is news.
    fn refused(&self, peer: &str, refusal: Refusal) {
        let reason = refusal.to_string();
        let news = self.shared.state.send_if_modified(|shown| {
            // Something else is to be registered by now: whoever waits for that must not be told
            // of the refusal of what was before. Looked at with the state locked, as an update
            // changes first what is wanted and then the state.
            let outdated = self.amended.has_changed().unwrap_or(false);
            let state = RegistrationState::Refused(refusal);
            let news = !outdated && *shown != state;
            if news {
                *shown = state;
            }
            news
        });
        if news {
            let held = self.shared.held.borrow();
            let Instance { namespace, service, id, .. } = &*held.instance;
            let what = "the registry refuses to register the instance again";
            tracing::warn!(namespace, service, instance = id, peer, reason, "{what}");
        }
    }

    async fn close(&mut self) -> Result<(), CloseError> {
        let closed = match self.lease.id() {
            Some(lease_id) => {
                let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
                leave(&self.link, &request).await
            }
            None => {
                let instance = Arc::clone(&self.shared.held.borrow().instance);
                self.enrolment.take_back(&instance).await
            }
        };
        match &closed {
            Ok(()) => self.log("deregistered"),
            Err(_) => self.log("could not deregister: it leaves when its TTL has passed"),
        }
        closed
    }

    /// Logs a failure: once for each outage, as the attempts that follow tell nothing new.
    fn miss(&mut self, Missed { peer, status }: &Missed, what: &str) {
        let (peer, reason) = (&**peer, told(status));
        let held = self.shared.held.borrow();
        let Instance { namespace, service, id, .. } = &*held.instance;
        if self.outage.begin() {
            tracing::warn!(namespace, service, instance = id, peer, reason, "{what}");
        } else {
            tracing::debug!(namespace, service, instance = id, peer, reason, "{what}");
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

/// However it ends: nobody must wait for it any more.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.show(RegistrationState::Closed);
    }
}

/// How long to leave the registry alone. What it refuses here is no business of the user's: that is
/// tried again, but slowly.
fn pause(status: &Status) -> Option<Duration> {
    match Verdict::of(status) {
        Verdict::Transient { after } => after,
        Verdict::Refused(_) => Some(REQUEST_TIMEOUT),
    }
}

/// Opens a stream whose first heartbeat is on its way already. `limit` is for the registry's answer.
async fn open(link: &Link, lease_id: u64, limit: Duration) -> Result<Beats, Missed> {
    let reached = link.reach().await?;
    let (requests, outgoing) = mpsc::channel(2);
    // Not lost where the registry answers the stream's head only after the first request.
    let first = KeepAliveRequest { lease_ids: vec![lease_id] };
    requests.try_send(first).expect("a new channel has room");
    let mut registry = RegistryClient::new(reached.connection.clone());
    let opened = clock::within(limit, registry.keep_alive(ReceiverStream::new(outgoing))).await;
    match opened.unwrap_or_else(|| Err(Status::deadline_exceeded("no stream in time"))) {
        Ok(answers) => Ok(Beats { reached, requests, answers: answers.into_inner() }),
        Err(status) => {
            link.leave(&reached);
            Err(Missed { peer: reached.peer, status })
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

/// What an answer to a registration grants, and the instance. Where the answer lacks it, it is what
/// was sent.
fn grant(response: RegisterResponse, sent: &Registration) -> (Grant, Instance) {
    let instance = response.instance.filter(|instance| !instance.id.is_empty());
    let instance = instance.unwrap_or_else(|| sent.instance.clone());
    // Negative ones are no durations, and some overflow where they are taken for one.
    let interval = response.heartbeat_interval.filter(|interval| interval.seconds >= 0);
    let interval = interval.filter(|interval| interval.nanos >= 0);
    let interval = interval.and_then(|interval| Duration::try_from(interval).ok());
    let grant = Grant {
        lease_id: response.lease_id,
        heartbeat_interval: interval
            .filter(|interval| INTERVALS.contains(interval))
            .unwrap_or(INTERVAL_DEFAULT),
        origin: (
            response.cursor.map(|cursor| cursor.history_id).unwrap_or_default(),
            instance.created_revision,
        ),
    };
    (grant, instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(seconds: i64, nanos: i32) -> Duration {
        let response = RegisterResponse {
            heartbeat_interval: Some(prost_types::Duration { seconds, nanos }),
            ..RegisterResponse::default()
        };
        grant(response, &Registration::new("orders", "h", 1)).0.heartbeat_interval
    }

    #[test]
    fn an_interval_that_makes_no_sense_is_not_believed() {
        assert_eq!(granted(7, 0), Duration::from_secs(7));
        for (seconds, nanos) in [(0, 0), (0, 1), (-1, 0), (301, 0), (i64::MAX, 0), (i64::MIN, -1)] {
            assert_eq!(granted(seconds, nanos), INTERVAL_DEFAULT, "{seconds}.{nanos}");
        }
    }

    #[test]
    fn an_answer_without_instance_leaves_what_was_sent() {
        let sent = Registration::new("orders", "h", 1).id("a");
        assert_eq!(grant(RegisterResponse::default(), &sent).1, sent.instance);
    }
}
