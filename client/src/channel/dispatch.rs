//! Sends a call to one instance after the other, until one has answered it or it may not be sent again.

use std::{sync::Arc, time::Duration};

use http::Response;
use tonic::{Status, body::Body};
use tower::retry::budget::Budget;
use tracing::Instrument;

use super::{
    attempt::Attempt,
    balanced::{BalancedChannel, SEND_WAIT_MAX},
    call::Call,
    connect::InstanceScope,
    failure::AttemptFailure,
    protocol::Protocol,
    retry::{NextInstance, Retry},
    served_by::ServedBy,
};
use crate::{
    endpoint::Outcome,
    runtime::clock::{self, Instant},
    transport::{SendError, connection},
};

impl<P: Protocol> BalancedChannel<P> {
    /// Sends a call until that came to something, or may not be repeated: first to `scope`.
    pub(super) async fn dispatch(
        &self,
        call: &Call,
        mut scope: InstanceScope,
    ) -> Result<Response<Body>, AttemptFailure> {
        let mut retry = Retry::new(self.options.attempts);
        let send_wait_max = SEND_WAIT_MAX.max(self.options.ready_wait);
        let mut give_up = clock::now() + send_wait_max;
        loop {
            let answered = self.attempt(call, scope, give_up).await;
            let Err(failure) = answered else { return answered };
            let Some(wait) = self.retry_after(&mut retry, call, &failure) else {
                return Err(failure);
            };
            scope = InstanceScope::Any;
            if !matches!(failure, AttemptFailure::Unsent(_) | AttemptFailure::Connect(_)) {
                give_up = clock::now() + wait + send_wait_max;
            }
            // An answer counts as in flight for as long as it is there.
            drop(failure);
            if !wait.is_zero() {
                call.set_quiet_since(clock::now() + wait);
                // Even of no length it would be a wait for the next tick.
                clock::sleep(wait).await;
            }
        }
    }

    /// How long to wait before a call is sent again; `None` where it is not to be.
    fn retry_after(
        &self,
        retry: &mut Retry,
        call: &Call,
        failure: &AttemptFailure,
    ) -> Option<Duration> {
        if let AttemptFailure::Connect(_) = failure {
            // Looking for an instance that takes a connection costs nothing.
            return call.is_replayable().then_some(Duration::ZERO);
        }
        let cause = failure.cause()?;
        let left = call.left(clock::now());
        let next = if self.has_another(call) { NextInstance::Untried } else { NextInstance::Tried };
        let wait = retry.wait(cause, next, call.sent(), left, fastrand::f64())?;
        let again = call.is_replayable() && self.budget.withdraw();
        if again {
            self.service.metrics().call_retried();
        }
        again.then_some(wait)
    }

    /// Sends a call once. `give_up`: when it has to be sent by.
    async fn attempt(
        &self,
        call: &Call,
        scope: InstanceScope,
        give_up: Instant,
    ) -> Result<Response<Body>, AttemptFailure> {
        let left = give_up.saturating_duration_since(clock::now());
        let found = clock::within(left, self.connect(call, scope)).await;
        let found = found.unwrap_or_else(|| Err(self.send_timeout_status(call)));
        let (pick, transport) = found.map_err(AttemptFailure::NoInstance)?;
        let gone = || AttemptFailure::NoInstance(Status::internal("the request's body is gone"));
        let (request, previous) = call.attempt::<P>(clock::now()).ok_or_else(gone)?;
        let endpoint = Arc::clone(pick.endpoint());
        let (service, instance) = (self.service.name(), &endpoint.instance().id);
        let span = tracing::debug_span!("attempt", service, instance, attempt = previous + 1);
        let attempt = Attempt::start(pick, call);
        match self.send(call, &transport, request, endpoint.address()).instrument(span).await {
            Ok(answer) => {
                let began = attempt.began();
                let mut answer = attempt.record_response(answer);
                answer.extensions_mut().insert(ServedBy { endpoint, attempts: previous + 1 });
                let checked = AttemptFailure::check(answer);
                if checked.is_ok() {
                    call.record_response(began);
                }
                checked
            }
            Err(SendError::Connect(error)) => {
                drop(attempt.into_unsent());
                call.record_unsent();
                endpoint.record(Outcome::Unreachable, Duration::ZERO);
                let status = Status::unavailable(error.to_string());
                call.tried().record_unreachable(&endpoint, error);
                Err(AttemptFailure::Connect(status))
            }
            Err(SendError::Unsent) => {
                drop(attempt.into_unsent());
                call.record_unsent();
                // Another connection to the same place may do, once.
                call.tried().record_closed(&endpoint);
                transport.forget(&endpoint);
                Err(AttemptFailure::Unsent(connection::unsent_status(&endpoint.address())))
            }
            Err(SendError::ConnectionLost(error)) => {
                drop(attempt.record_connection_lost());
                transport.forget(&endpoint);
                Err(AttemptFailure::ConnectionLost(connection::lost_status(
                    &endpoint.address(),
                    &*error,
                )))
            }
            Err(SendError::Stale(error)) => {
                drop(attempt.into_unsent());
                Err(AttemptFailure::ConnectionLost(connection::lost_status(
                    &endpoint.address(),
                    &*error,
                )))
            }
            Err(SendError::InvalidResponse(reason)) => {
                drop(attempt.record_served());
                Err(AttemptFailure::InvalidResponse(reason.status(&endpoint.address())))
            }
        }
    }
}
