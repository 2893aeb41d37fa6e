//! Sends a call to one instance after the other, until one responds or no retry is allowed.

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
    transport::Transport,
};
use crate::{
    endpoint::{Endpoint, Outcome},
    runtime::clock::{self, Instant},
    transport::{SendError, connection},
};

impl<P: Protocol> BalancedChannel<P> {
    /// Sends a call until it succeeds or may not be retried. The first attempt goes to `scope`.
    pub(super) async fn dispatch(
        &self,
        call: &Call,
        mut scope: InstanceScope,
    ) -> Result<Response<Body>, AttemptFailure> {
        let mut retry = Retry::new(self.options.attempts);
        let send_wait_max = SEND_WAIT_MAX.max(self.options.ready_wait);
        let mut give_up = clock::now() + send_wait_max;
        loop {
            let result = self.attempt(call, scope, give_up).await;
            let Err(failure) = result else { return result };
            let Some(wait) = self.retry_after(&mut retry, call, &failure) else {
                return Err(failure);
            };
            scope = InstanceScope::Any;
            if !matches!(failure, AttemptFailure::Unsent(_) | AttemptFailure::Connect(_)) {
                give_up = clock::now() + wait + send_wait_max;
            }
            // A response counts as in flight until it is dropped.
            drop(failure);
            if !wait.is_zero() {
                call.set_quiet_since(clock::now() + wait);
                // Even a sleep of no length would wait for the next tick.
                clock::sleep(wait).await;
            }
        }
    }

    /// Returns the wait before a retry; `None` if there is to be none.
    fn retry_after(
        &self,
        retry: &mut Retry,
        call: &Call,
        failure: &AttemptFailure,
    ) -> Option<Duration> {
        if let AttemptFailure::Connect(_) = failure {
            // The search for an instance that takes a connection is free.
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

    /// Sends a call once, no later than `give_up`.
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
        let gone = || Status::internal("the request body can't be sent again");
        let (request, previous) =
            call.attempt::<P>(clock::now()).ok_or_else(|| AttemptFailure::NoInstance(gone()))?;
        let endpoint = Arc::clone(pick.endpoint());
        let (service, instance) = (self.service.name(), &endpoint.instance().id);
        let span = tracing::debug_span!("attempt", service, instance, attempt = previous + 1);
        let attempt = Attempt::start(pick, call);
        match self.send(call, &transport, request, endpoint.address()).instrument(span).await {
            Ok(response) => {
                let began = attempt.began();
                let mut response = attempt.record_response(response);
                response.extensions_mut().insert(ServedBy { endpoint, attempts: previous + 1 });
                let checked = AttemptFailure::check(response);
                if checked.is_ok() {
                    call.record_response(began);
                }
                checked
            }
            Err(error) => Err(attempt_failure(error, attempt, call, &transport, &endpoint)),
        }
    }
}

/// Records a failure to send, or to get a response, and returns it as that of the attempt.
fn attempt_failure(
    error: SendError,
    attempt: Attempt<'_>,
    call: &Call,
    transport: &Transport,
    endpoint: &Arc<Endpoint>,
) -> AttemptFailure {
    let address = &endpoint.address();
    match error {
        SendError::Connect(error) => {
            drop(attempt.into_unsent());
            call.record_unsent();
            endpoint.record(Outcome::Unreachable, Duration::ZERO);
            let status = Status::unavailable(error.to_string());
            call.tried().record_unreachable(endpoint, error);
            AttemptFailure::Connect(status)
        }
        SendError::Unsent => {
            drop(attempt.into_unsent());
            call.record_unsent();
            // Another connection to the same address may work, once.
            call.tried().record_closed(endpoint);
            transport.forget(endpoint);
            AttemptFailure::Unsent(connection::unsent_status(address))
        }
        SendError::ConnectionLost(error) => {
            drop(attempt.record_connection_lost());
            transport.forget(endpoint);
            AttemptFailure::ConnectionLost(connection::lost_status(address, &*error))
        }
        SendError::Stale(error) => {
            drop(attempt.into_unsent());
            AttemptFailure::ConnectionLost(connection::lost_status(address, &*error))
        }
        SendError::InvalidResponse(reason) => {
            drop(attempt.record_served());
            AttemptFailure::InvalidResponse(reason.status(address))
        }
    }
}
