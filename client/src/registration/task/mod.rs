//! The task of a registration: performs the steps that its lease asks for, reports their results to
//! it, and deregisters at the end. Decides no times: the lease does.

mod grant;
mod holder;

use std::{future, sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    attempt::{RegisterAttempt, deregister},
    heartbeats::{Heartbeats, Renewal, StreamBreak, StreamHandle},
    lease::{Lease, LossCause, Step},
    spec::Registration,
    state::{ActiveLease, DeregisterError, RegisterError, RegistrationState, SharedRegistration},
};
use crate::{
    endpoint::address,
    proto::{
        DeregisterRequest, Instance, RegisterResponse, Status as InstanceStatus,
        registry_client::RegistryClient,
    },
    registry::{
        CredentialChanges, CredentialState, Outage, REQUEST_TIMEOUT, Refusal, RegistryLink,
        RequestFailure, Retryability, message,
    },
    runtime::clock,
};

const HOLDER_UNKNOWN: &str = "can't look up the other holder of the id, retrying";

/// The state of the task.
pub(crate) struct RegistrationTask {
    link: Arc<RegistryLink>,
    heartbeats: Heartbeats,
    lease: Lease,
    shared: SharedRegistration,
    desired_changes: watch::Receiver<Registration>,
    lost_lease: watch::Receiver<u64>,
    /// The stream that renews the lease. Kept until the deregistration is confirmed: the registry
    /// takes the end of a stream for the death of its instances.
    stream: Option<StreamHandle>,
    attempt: RegisterAttempt,
    outage: Outage,
    credentials: CredentialChanges,
    /// The caller that waits for the first response, if there is one: it gets a refusal.
    first_response: Option<oneshot::Sender<Result<(), RegisterError>>>,
    stop: CancellationToken,
}

impl RegistrationTask {
    /// Keeps `registration` until `stop`, once it runs.
    pub(crate) fn new(
        link: Arc<RegistryLink>,
        heartbeats: Heartbeats,
        mut registration: Registration,
        first_response: Option<oneshot::Sender<Result<(), RegisterError>>>,
        stop: CancellationToken,
    ) -> Self {
        let attempt = RegisterAttempt::new(Arc::clone(&link), &mut registration);
        let shared = SharedRegistration::new(registration);
        let (desired_changes, lost_lease) =
            (shared.desired.subscribe(), shared.lost_lease.subscribe());
        let lease = Lease::new(clock::now(), link.backoff());
        let (stream, outage, credentials) = (None, Outage::default(), link.credentials());
        Self {
            link,
            heartbeats,
            lease,
            shared,
            desired_changes,
            lost_lease,
            stream,
            attempt,
            outage,
            credentials,
            first_response,
            stop,
        }
    }

    /// The state that it shares with the guard.
    pub(crate) fn shared(&self) -> SharedRegistration {
        self.shared.clone()
    }

    /// Runs until it is stopped, and then deregisters.
    pub(crate) async fn run(mut self) -> Result<(), DeregisterError> {
        while !self.stop.is_cancelled() {
            match self.lease.step(clock::now()) {
                Step::Wait(until) => self.wait(until).await,
                Step::OpenStream(lease_id) => self.open_stream(lease_id).await,
                Step::Heartbeat(lease_id) => self.heartbeat(lease_id),
                Step::FailStream => self.fail_stream(),
                Step::QueryLease(lease_id) => self.query_lease(lease_id).await,
                Step::FindHolder => self.find_holder().await,
                Step::Register => self.register().await,
            }
        }
        self.deregister().await
    }

    async fn wait(&mut self, until: clock::Instant) {
        let stop = self.stop.clone();
        // Results that arrived in time come first: this process itself may have been suspended.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            result = next_result(&mut self.stream) => self.heartbeat_result(result),
            Ok(()) = self.desired_changes.changed() => self.lease.desired_changed(clock::now()),
            Ok(()) = self.lost_lease.changed() => {
                let lost = *self.lost_lease.borrow_and_update();
                self.note_loss(|lease, now| lease.mark_lost(lost, now));
            }
            () = self.credentials.changed(), if self.lease.waits_for_credentials() => {
                self.lease.credentials_changed(clock::now());
            }
            () = clock::sleep_until(until) => {}
        }
    }

    async fn open_stream(&mut self, lease_id: u64) {
        let limit = self.lease.heartbeat_timeout().min(REQUEST_TIMEOUT);
        let stop = self.stop.clone();
        let stream = self.stream.insert(self.heartbeats.join(lease_id));
        let Some(opened) = stop.run_until_cancelled(stream.wait_open(limit)).await else { return };
        match opened {
            Ok(()) => self.lease.heartbeat_sent(clock::now()),
            Err(broken) => self.stream_failed(&broken),
        }
    }

    fn heartbeat(&mut self, lease_id: u64) {
        if let Some(stream) = &mut self.stream {
            stream.send(lease_id);
        }
        self.lease.heartbeat_sent(clock::now());
    }

    fn heartbeat_result(&mut self, result: Result<Renewal, StreamBreak>) {
        let renewal = match result {
            Ok(renewal) => renewal,
            Err(broken) => return self.stream_failed(&broken),
        };
        let unknown = self.lease.id().filter(|_| renewal == Renewal::Unknown);
        self.note_loss(|lease, now| lease.heartbeat_answered(unknown.as_slice(), now));
        if self.outage.end() {
            self.log("registry reached again");
        }
        if let Some(lease_id) = self.lease.id() {
            self.set_state(RegistrationState::Registered { lease_id });
        }
    }

    /// Passes an event to the lease, and reports it if the lease is lost by it.
    fn note_loss(&mut self, update: impl FnOnce(&mut Lease, clock::Instant)) {
        let before = self.lease.id();
        update(&mut self.lease, clock::now());
        if before.is_some() && self.lease.id().is_none() {
            self.log("lease lost, registering again");
            self.set_state(RegistrationState::Lost);
        }
    }

    /// Fails the stream: no response came in time.
    fn fail_stream(&mut self) {
        match &mut self.stream {
            Some(stream) => {
                let broken = stream.fail_timed_out();
                self.stream_failed(&broken);
            }
            None => self.lease.stream_failed(clock::now(), fastrand::f64(), None),
        }
    }

    fn stream_failed(&mut self, broken: &StreamBreak) {
        self.stream = None;
        let StreamBreak::Failed { failure, random } = broken else {
            return self.lease.stream_moved(clock::now());
        };
        let what = "heartbeat stream lost, reconnecting";
        if let Retryability::Denied(_) = Retryability::of(&failure.status) {
            self.denied(failure, what, *random);
        } else {
            self.report_failure(failure, what);
            self.lease.stream_failed(clock::now(), *random, pause(&failure.status));
        }
        if let Some(lease_id) = self.lease.id() {
            self.set_state(RegistrationState::Retrying { lease_id });
        }
    }

    /// Asks the registry what became of a lost lease. Deregistering it has no effect if it is not
    /// active, and the error gives the reason.
    async fn query_lease(&mut self, lease_id: u64) {
        let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        let requested = self.link.request(|connection| async move {
            RegistryClient::new(connection).deregister(request).await
        });
        let Some(result) = self.stop.run_until_cancelled(requested).await else { return };
        let (now, random) = (clock::now(), fastrand::f64());
        let cause = match result {
            Ok(_) => LossCause::NotFound,
            Err(failure) => match failure.status.code() {
                Code::NotFound => LossCause::NotFound,
                Code::FailedPrecondition => LossCause::Fenced,
                Code::Unauthenticated => {
                    return self.denied(
                        &failure,
                        "can't query the lost lease yet, retrying",
                        random,
                    );
                }
                _ => {
                    self.report_failure(&failure, "can't query the lost lease yet, retrying");
                    return self.lease.unreachable(now, random, pause(&failure.status));
                }
            },
        };
        self.lease.loss_explained(cause, now, random);
    }

    /// Looks up the process that took over the identity. If the registry refuses the lookup, the
    /// identity is taken back with growing delays.
    async fn find_holder(&mut self) {
        let wanted = self.shared.instance();
        let requested = holder::find(&self.link, &wanted);
        let Some(result) = self.stop.run_until_cancelled(requested).await else { return };
        let (now, random) = (clock::now(), fastrand::f64());
        let cause = match result {
            Ok(holder) => {
                if self.outage.end() {
                    self.log("registry reached again");
                }
                match &holder {
                    None => LossCause::NotFound,
                    Some(holder) => self.report_holder(holder, &wanted),
                }
            }
            Err(failure) => match Retryability::of(&failure.status) {
                Retryability::Retry { after } => {
                    self.report_failure(&failure, HOLDER_UNKNOWN);
                    return self.lease.unreachable(now, random, after);
                }
                Retryability::Denied(_) => return self.denied(&failure, HOLDER_UNKNOWN, random),
                Retryability::Fatal(refusal) => {
                    let reason = refusal.to_string();
                    let Instance { namespace, service, id, .. } = &*wanted;
                    let what = "another process registered the same id; give each its own id";
                    tracing::warn!(namespace, service, instance = id, reason, "{what}");
                    LossCause::HeldAtSameAddress
                }
            },
        };
        self.lease.loss_explained(cause, now, random);
    }

    /// Reports another process that holds the identity, if that is new.
    fn report_holder(&self, holder: &Instance, wanted: &Instance) -> LossCause {
        let address = address(&holder.host, holder.port);
        let Instance { namespace, service, id, .. } = wanted;
        let is_draining =
            self.shared.desired.borrow().instance.status() == InstanceStatus::Draining;
        if is_draining {
            // The successor of this process, usually at the same address: it stays registered.
            tracing::info!(
                namespace,
                service,
                instance = id,
                address,
                "id taken over while draining"
            );
            return LossCause::HeldElsewhere;
        }
        if holder.host == wanted.host && holder.port == wanted.port {
            let what = "another process registered the same id with the same address, registering \
                        again; give each process its own id and address";
            tracing::warn!(namespace, service, instance = id, address, "{what}");
            return LossCause::HeldAtSameAddress;
        }
        let state = RegistrationState::Replaced { address: address.as_str().into() };
        if self.set_state(state) {
            let what = "another process registered the same id, this one waits until that one \
                        is gone; give each process its own id";
            tracing::warn!(namespace, service, instance = id, address, "{what}");
        }
        LossCause::HeldElsewhere
    }

    async fn register(&mut self) {
        // Marked as seen: later changes are not in this attempt.
        let desired = self.desired_changes.borrow_and_update().clone();
        let Some(result) = self.attempt.send(&desired, &self.stop).await else { return };
        let failure = match result {
            Ok(response) => return self.registered(response, &desired),
            Err(failure) => failure,
        };
        let now = clock::now();
        match Retryability::of(&failure.status) {
            Retryability::Retry { after } => {
                let what = if self.lease.is_new() {
                    "can't register yet, retrying"
                } else {
                    "can't register again yet, retrying"
                };
                self.report_failure(&failure, what);
                self.lease.unreachable(now, fastrand::f64(), after);
            }
            Retryability::Denied(refusal) => {
                self.outage.end();
                let credentials = self.link.credentials_of(&failure);
                self.lease.denied(credentials, now, fastrand::f64());
                // Renewed ones may be accepted: their refusal is the one to report.
                if credentials == CredentialState::Refused {
                    self.report_refusal(&failure.peer, refusal);
                }
            }
            Retryability::Fatal(refusal) => {
                self.outage.end();
                self.lease.refused(now, fastrand::f64());
                self.report_refusal(&failure.peer, refusal);
            }
        }
    }

    /// The registry refused the credentials of a renewal or a query.
    fn denied(&mut self, failure: &RequestFailure, what: &str, random: f64) {
        let credentials = self.link.credentials_of(failure);
        if credentials == CredentialState::Refused {
            self.report_failure(failure, what);
        }
        self.lease.denied(credentials, clock::now(), random);
    }

    /// The registry confirmed `sent`.
    fn registered(&mut self, response: RegisterResponse, sent: &Registration) {
        let (grant, instance) = grant::grant(response, sent);
        let lease_id = grant.lease_id;
        if self.outage.end() && self.lease.is_new() {
            self.log("registry reached");
        }
        let what = if self.lease.is_new() { "registered" } else { "registered again" };
        self.lease.granted(grant, clock::now());
        // A later registration must have the same id.
        self.shared.desired.send_if_modified(|desired| {
            let named = desired.instance.id != instance.id;
            desired.instance.id.clone_from(&instance.id);
            named
        });
        self.shared
            .active
            .send_replace(Some(ActiveLease { lease_id, instance: Arc::new(instance) }));
        self.log(what);
        self.set_state(RegistrationState::Registered { lease_id });
        if let Some(result) = self.first_response.take() {
            // If the caller is gone, the task was stopped and deregisters.
            let _ = result.send(Ok(()));
        }
    }

    /// Reports a refusal, if it is new.
    fn report_refusal(&mut self, peer: &str, refusal: Refusal) {
        if let Some(result) = self.first_response.take() {
            // The caller returns it, and stops the task.
            let _ = result.send(Err(refusal.into()));
            return;
        }
        let reason = refusal.to_string();
        let news = self.shared.state.send_if_modified(|current| {
            // The desired instance may have changed since: a waiting update must not get the
            // refusal of the previous one. Checked with the state locked, because an update changes
            // the desired instance first and then the state.
            let outdated = self.desired_changes.has_changed().unwrap_or(false);
            let state = RegistrationState::Refused(refusal);
            let news = !outdated && *current != state;
            if news {
                *current = state;
            }
            news
        });
        if news {
            let desired = self.shared.desired.borrow();
            let Instance { namespace, service, id, .. } = &desired.instance;
            let what = "the registry refused to register the instance";
            tracing::warn!(namespace, service, instance = id, peer, reason, "{what}");
        }
    }

    async fn deregister(&mut self) -> Result<(), DeregisterError> {
        let closed = match self.lease.id() {
            Some(lease_id) => {
                let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
                deregister(&self.link, &request).await
            }
            None => {
                let instance = self.shared.instance();
                self.attempt.undo(&instance).await
            }
        };
        match &closed {
            // It was never registered, or the caller did not wait for that.
            Ok(()) if self.lease.is_new() => {}
            Ok(()) => self.log("deregistered"),
            Err(_) => self.log("could not deregister, the instance stays until its TTL has passed"),
        }
        closed
    }

    /// Logs a failure once for each outage; further attempts add nothing.
    fn report_failure(&mut self, failure: &RequestFailure, what: &str) {
        let (peer, reason) = (&*failure.peer, message(&failure.status));
        let desired = self.shared.desired.borrow();
        let Instance { namespace, service, id, .. } = &desired.instance;
        if self.outage.begin() {
            tracing::warn!(namespace, service, instance = id, peer, reason, "{what}");
        } else {
            tracing::debug!(namespace, service, instance = id, peer, reason, "{what}");
        }
    }

    /// Sets the state. Returns whether it changed.
    fn set_state(&self, state: RegistrationState) -> bool {
        self.shared.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        })
    }

    fn log(&self, what: &str) {
        let desired = self.shared.desired.borrow();
        let Instance { namespace, service, id, .. } = &desired.instance;
        tracing::info!(namespace, service, instance = id, "{what}");
    }
}

/// However the task ends: no caller must wait for it.
impl Drop for RegistrationTask {
    fn drop(&mut self) {
        self.set_state(RegistrationState::Deregistered);
    }
}

/// The delay before the next attempt. A refusal of a step that the user does not know is
/// retried, but slowly.
fn pause(status: &Status) -> Option<Duration> {
    match Retryability::of(status) {
        Retryability::Retry { after } => after,
        Retryability::Denied(_) | Retryability::Fatal(_) => Some(REQUEST_TIMEOUT),
    }
}

/// Waits for the next result of the stream; forever if there is none. Cancel safe.
async fn next_result(stream: &mut Option<StreamHandle>) -> Result<Renewal, StreamBreak> {
    match stream {
        Some(stream) => stream.result().await,
        None => future::pending().await,
    }
}
