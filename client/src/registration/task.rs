//! The task behind a registration: does what the lease says is next, tells it what came of it, and
//! deregisters at the end. It must never decide when to do what: that is the lease's.

use std::{future, ops::RangeInclusive, sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    attempt::{Enrolment, leave},
    heartbeats::{Pulse, Renewal, Seat, StreamBreak},
    lease::{Fate, Grant, Lease, Step},
    spec::Registration,
    state::{DeregisterError, Held, RegisterError, RegistrationState, Shared},
};
use crate::{
    endpoint::address,
    proto::{
        DeregisterRequest, Instance, RegisterResponse, ResolveRequest, Status as InstanceStatus,
        discovery_client::DiscoveryClient, registry_client::RegistryClient,
    },
    registry::{
        Outage, REQUEST_TIMEOUT, Refusal, RegistryLink, RequestFailure, Retryability, message,
    },
    runtime::clock,
};

/// The heartbeat interval where an answer does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// The shortest and the longest heartbeat interval that is believed. Shorter would be a flood; the
/// longest TTL is 5 min.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);

/// Instances on one page of a lookup, and pages of one lookup.
const PAGE_SIZE: u32 = 1_000;
const PAGES_MAX: usize = 10_000;

/// The task's state.
pub(crate) struct Keeper {
    link: Arc<RegistryLink>,
    pulse: Arc<Pulse>,
    lease: Lease,
    shared: Shared,
    amended: watch::Receiver<Registration>,
    found_lost: watch::Receiver<u64>,
    /// On the stream that renews the lease. Kept until the registry has answered the deregistration:
    /// a stream that ends before takes the instance away as one that died.
    seat: Option<Seat>,
    enrolment: Enrolment,
    outage: Outage,
    /// Who waits for the registry's first answer. Where somebody does, a refusal is theirs.
    answer: Option<oneshot::Sender<Result<(), RegisterError>>>,
    stop: CancellationToken,
}

impl Keeper {
    /// Keeps `registration` until `stop`, once it runs.
    pub(crate) fn new(
        link: Arc<RegistryLink>,
        pulse: Arc<Pulse>,
        mut registration: Registration,
        answer: Option<oneshot::Sender<Result<(), RegisterError>>>,
        stop: CancellationToken,
    ) -> Self {
        let enrolment = Enrolment::new(Arc::clone(&link), &mut registration);
        let shared = Shared::new(registration);
        let (amended, found_lost) = (shared.desired.subscribe(), shared.found_lost.subscribe());
        let lease = Lease::new(clock::now(), link.backoff());
        let (seat, outage) = (None, Outage::default());
        Self {
            link,
            pulse,
            lease,
            shared,
            amended,
            found_lost,
            seat,
            enrolment,
            outage,
            answer,
            stop,
        }
    }

    /// What it shares with the guard.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Works until stopped, and then deregisters.
    pub(crate) async fn run(mut self) -> Result<(), DeregisterError> {
        while !self.stop.is_cancelled() {
            match self.lease.step(clock::now()) {
                Step::Wait(until) => self.wait(until).await,
                Step::Open(lease_id) => self.open(lease_id).await,
                Step::Beat(lease_id) => self.beat(lease_id),
                Step::Break => self.give_up(),
                Step::Ask(lease_id) => self.ask(lease_id).await,
                Step::Look => self.look().await,
                Step::Register => self.register().await,
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
            told = told_next(&mut self.seat) => self.hear(told),
            Ok(()) = self.amended.changed() => self.lease.amended(clock::now()),
            Ok(()) = self.found_lost.changed() => {
                let lost = *self.found_lost.borrow_and_update();
                self.lose(|lease, now| lease.doubt(lost, now));
            }
            () = clock::sleep_until(until) => {}
        }
    }

    async fn open(&mut self, lease_id: u64) {
        let limit = self.lease.patience().min(REQUEST_TIMEOUT);
        let stop = self.stop.clone();
        let seat = self.seat.insert(self.pulse.join(lease_id));
        let Some(opened) = stop.run_until_cancelled(seat.opened(limit)).await else { return };
        match opened {
            Ok(()) => self.lease.beaten(clock::now()),
            Err(broken) => self.broken(&broken),
        }
    }

    fn beat(&mut self, lease_id: u64) {
        if let Some(seat) = &mut self.seat {
            seat.beat(lease_id);
        }
        self.lease.beaten(clock::now());
    }

    fn hear(&mut self, told: Result<Renewal, StreamBreak>) {
        let renewal = match told {
            Ok(renewal) => renewal,
            Err(broken) => return self.broken(&broken),
        };
        let unknown = self.lease.id().filter(|_| renewal == Renewal::Unknown);
        self.lose(|lease, now| lease.answered(unknown.as_slice(), now));
        if self.outage.end() {
            self.log("registry reached again");
        }
        if let Some(lease_id) = self.lease.id() {
            self.show(RegistrationState::Registered { lease_id });
        }
    }

    /// Tells the lease what may be the news that it is lost.
    fn lose(&mut self, tell: impl FnOnce(&mut Lease, clock::Instant)) {
        let before = self.lease.id();
        tell(&mut self.lease, clock::now());
        if before.is_some() && self.lease.id().is_none() {
            self.log("the registry does not know the lease any more");
            self.show(RegistrationState::Lost);
        }
    }

    /// Gives the stream up: no answer came in time.
    fn give_up(&mut self) {
        match &mut self.seat {
            Some(seat) => {
                let broken = seat.give_up();
                self.broken(&broken);
            }
            None => self.lease.broken(clock::now(), fastrand::f64(), None),
        }
    }

    fn broken(&mut self, broken: &StreamBreak) {
        self.seat = None;
        let StreamBreak::Failed { failure, random } = broken else {
            return self.lease.moved(clock::now());
        };
        let after = pause(&failure.status);
        self.report_failure(failure, "heartbeats broke off, trying again");
        self.lease.broken(clock::now(), *random, after);
        if let Some(lease_id) = self.lease.id() {
            self.show(RegistrationState::Retrying { lease_id });
        }
    }

    /// Asks what became of a lost lease. To give it back does nothing where it does not live, and the
    /// answer tells why it doesn't.
    async fn ask(&mut self, lease_id: u64) {
        let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        let asked = self.link.request(|connection| async move {
            RegistryClient::new(connection).deregister(request).await
        });
        let Some(answer) = self.stop.run_until_cancelled(asked).await else { return };
        let (now, random) = (clock::now(), fastrand::f64());
        let fate = match answer {
            Ok(_) => Fate::Gone,
            Err(failure) => match failure.status.code() {
                Code::NotFound => Fate::Gone,
                Code::FailedPrecondition => Fate::Fenced,
                _ => {
                    self.report_failure(
                        &failure,
                        "can't ask about the lost lease yet, trying again",
                    );
                    return self.lease.unreachable(now, random, pause(&failure.status));
                }
            },
        };
        self.lease.explained(fate, now, random);
    }

    /// Looks up which process holds the identity that was taken over. Where it can't be found out,
    /// the identity is taken back, ever more slowly.
    async fn look(&mut self) {
        let wanted = self.shared.instance();
        let asked = find(&self.link, &wanted);
        let Some(answer) = self.stop.run_until_cancelled(asked).await else { return };
        let (now, random) = (clock::now(), fastrand::f64());
        let fate = match answer {
            Ok(holder) => {
                if self.outage.end() {
                    self.log("registry reached again");
                }
                match &holder {
                    None => Fate::Gone,
                    Some(holder) => self.replaced(holder, &wanted),
                }
            }
            Err(failure) => match Retryability::of(&failure.status) {
                Retryability::Retry { after } => {
                    self.report_failure(
                        &failure,
                        "can't look up the other holder of the id, trying again",
                    );
                    return self.lease.unreachable(now, random, after);
                }
                Retryability::Fatal(refusal) => {
                    let reason = refusal.to_string();
                    let Instance { namespace, service, id, .. } = &*wanted;
                    let what = "another process registered the same id; give each its own id";
                    tracing::warn!(namespace, service, instance = id, reason, "{what}");
                    Fate::HeldHere
                }
            },
        };
        self.lease.explained(fate, now, random);
    }

    /// Reports that another process holds the identity, where that is news.
    fn replaced(&self, holder: &Instance, wanted: &Instance) -> Fate {
        let address = address(&holder.host, holder.port);
        let Instance { namespace, service, id, .. } = wanted;
        let is_draining =
            self.shared.desired.borrow().instance.status() == InstanceStatus::Draining;
        if is_draining {
            // Its successor, at the same address as a rule: it stays what that one made it.
            tracing::info!(
                namespace,
                service,
                instance = id,
                address,
                "id taken over while draining"
            );
            return Fate::HeldElsewhere;
        }
        if holder.host == wanted.host && holder.port == wanted.port {
            let what = "another process registered the same id with the same address, registering \
                        again; give each process its own id and address";
            tracing::warn!(namespace, service, instance = id, address, "{what}");
            return Fate::HeldHere;
        }
        let state = RegistrationState::Replaced { address: address.as_str().into() };
        if self.show(state) {
            let what = "another process registered the same id: this one is not registered until \
                        that one is gone; give each process its own id";
            tracing::warn!(namespace, service, instance = id, address, "{what}");
        }
        Fate::HeldElsewhere
    }

    async fn register(&mut self) {
        // Seen: what changes from here on is not in this attempt.
        let desired = self.amended.borrow_and_update().clone();
        let Some(answer) = self.enrolment.attempt(&desired, &self.stop).await else { return };
        let failure = match answer {
            Ok(response) => return self.registered(response, &desired),
            Err(failure) => failure,
        };
        let now = clock::now();
        match Retryability::of(&failure.status) {
            Retryability::Retry { after } => {
                let what = if self.lease.is_new() {
                    "can't register yet, trying again"
                } else {
                    "can't register again yet, trying again"
                };
                self.report_failure(&failure, what);
                self.lease.unreachable(now, fastrand::f64(), after);
            }
            Retryability::Fatal(refusal) => {
                self.outage.end();
                self.lease.refuse(now, fastrand::f64());
                self.refused(&failure.peer, refusal);
            }
        }
    }

    /// The registry holds what was `sent`.
    fn registered(&mut self, response: RegisterResponse, sent: &Registration) {
        let (grant, instance) = grant(response, sent);
        let lease_id = grant.lease_id;
        if self.outage.end() && self.lease.is_new() {
            self.log("registry reached");
        }
        let what = if self.lease.is_new() { "registered" } else { "registered again" };
        self.lease.granted(grant, clock::now());
        // However it was named: registering again is registering the same.
        self.shared.desired.send_if_modified(|desired| {
            let named = desired.instance.id != instance.id;
            desired.instance.id.clone_from(&instance.id);
            named
        });
        self.shared.held.send_replace(Some(Held { lease_id, instance: Arc::new(instance) }));
        self.log(what);
        self.show(RegistrationState::Registered { lease_id });
        if let Some(answer) = self.answer.take() {
            // Where nobody waits any more, the keeper was stopped, and deregisters.
            let _ = answer.send(Ok(()));
        }
    }

    /// Shows that the registry refuses, and says so where that is news.
    fn refused(&mut self, peer: &str, refusal: Refusal) {
        if let Some(answer) = self.answer.take() {
            // Who waits for it returns it, and stops the keeper.
            let _ = answer.send(Err(refusal.into()));
            return;
        }
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
            let desired = self.shared.desired.borrow();
            let Instance { namespace, service, id, .. } = &desired.instance;
            let what = "the registry refuses to register the instance";
            tracing::warn!(namespace, service, instance = id, peer, reason, "{what}");
        }
    }

    async fn close(&mut self) -> Result<(), DeregisterError> {
        let closed = match self.lease.id() {
            Some(lease_id) => {
                let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
                leave(&self.link, &request).await
            }
            None => {
                let instance = self.shared.instance();
                self.enrolment.take_back(&instance).await
            }
        };
        match &closed {
            // It never was registered, or nobody waited for that any more.
            Ok(()) if self.lease.is_new() => {}
            Ok(()) => self.log("deregistered"),
            Err(_) => self.log("could not deregister: it leaves when its TTL has passed"),
        }
        closed
    }

    /// Logs a failure: once for each outage, as the attempts that follow tell nothing new.
    fn report_failure(&mut self, RequestFailure { peer, status }: &RequestFailure, what: &str) {
        let (peer, reason) = (&**peer, message(status));
        let desired = self.shared.desired.borrow();
        let Instance { namespace, service, id, .. } = &desired.instance;
        if self.outage.begin() {
            tracing::warn!(namespace, service, instance = id, peer, reason, "{what}");
        } else {
            tracing::debug!(namespace, service, instance = id, peer, reason, "{what}");
        }
    }

    /// Shows a state, and returns whether it is another one than before.
    fn show(&self, state: RegistrationState) -> bool {
        self.shared.state.send_if_modified(|shown| {
            let changed = *shown != state;
            *shown = state;
            changed
        })
    }

    fn log(&self, what: &str) {
        let desired = self.shared.desired.borrow();
        let Instance { namespace, service, id, .. } = &desired.instance;
        tracing::info!(namespace, service, instance = id, "{what}");
    }
}

/// However it ends: nobody must wait for it any more.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.show(RegistrationState::Deregistered);
    }
}

/// How long to leave the registry alone. What it refuses here is no business of the user's: that is
/// tried again, but slowly.
fn pause(status: &Status) -> Option<Duration> {
    match Retryability::of(status) {
        Retryability::Retry { after } => after,
        Retryability::Fatal(_) => Some(REQUEST_TIMEOUT),
    }
}

/// What the seat is told next; never anything where there is none. Cancel safe.
async fn told_next(seat: &mut Option<Seat>) -> Result<Renewal, StreamBreak> {
    match seat {
        Some(seat) => seat.told().await,
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

/// Looks up the instance that holds the id of `wanted`, page by page: a service may be larger than one
/// message. Cancel safe.
async fn find(link: &RegistryLink, wanted: &Instance) -> Result<Option<Instance>, RequestFailure> {
    let mut page_token = String::new();
    // Bounded: a registry holds fewer instances than these pages have room for.
    for _ in 0..PAGES_MAX {
        let request = ResolveRequest {
            namespace: wanted.namespace.clone(),
            service: wanted.service.clone(),
            all_statuses: true,
            page_size: PAGE_SIZE,
            page_token,
            ..ResolveRequest::default()
        };
        let asked = link.request(|connection| async move {
            DiscoveryClient::new(connection).resolve(request).await
        });
        let page = asked.await?;
        let holder = page.instances.into_iter().find(|instance| instance.id == wanted.id);
        if holder.is_some() || page.next_page_token.is_empty() {
            return Ok(holder);
        }
        page_token = page.next_page_token;
    }
    Ok(None)
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
