//! Sends a call to one instance after the other, until one has answered it or it may not be sent again.

use std::{sync::Arc, time::Duration};

use http::Response;
use tonic::{Status, body::Body};
use tower::retry::budget::Budget;
use tracing::Instrument;

use super::{
    attempt::Attempt,
    balanced::{BalancedChannel, UNSENT_MAX},
    call::Call,
    connect::Scope,
    failure::Failure,
    protocol::Protocol,
    retry::{Next, Retry},
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
        mut scope: Scope,
    ) -> Result<Response<Body>, Failure> {
        let mut retry = Retry::new(self.options.attempts);
        let unsent_max = UNSENT_MAX.max(self.options.ready_wait);
        let mut give_up = clock::now() + unsent_max;
        loop {
            let answered = self.attempt(call, scope, give_up).await;
            let Err(failure) = answered else { return answered };
            let Some(wait) = self.retry_after(&mut retry, call, &failure) else {
                return Err(failure);
            };
            scope = Scope::All;
            if !matches!(failure, Failure::Unsent(_) | Failure::Unreached(_)) {
                give_up = clock::now() + wait + unsent_max;
            }
            // An answer counts as in flight for as long as it is there.
            drop(failure);
            if !wait.is_zero() {
                call.note_quiet(clock::now() + wait);
                // Even of no length it would be a wait for the next tick.
                clock::sleep(wait).await;
            }
        }
    }

    /// How long to wait before a call is sent again; `None` where it is not to be.
    fn retry_after(&self, retry: &mut Retry, call: &Call, failure: &Failure) -> Option<Duration> {
        if let Failure::Unreached(_) = failure {
            // Looking for an instance that takes a connection costs nothing.
            return call.is_whole().then_some(Duration::ZERO);
        }
        let cause = failure.cause()?;
        let left = call.left(clock::now());
        let next = if self.has_another(call) { Next::Untried } else { Next::Tried };
        let wait = retry.wait(cause, next, call.sent(), left, fastrand::f64())?;
        let again = call.is_whole() && self.budget.withdraw();
        if again {
            self.service.metrics().call_retried();
        }
        again.then_some(wait)
    }

    /// Sends a call once. `give_up`: when it has to be sent by.
    async fn attempt(
        &self,
        call: &Call,
        scope: Scope,
        give_up: Instant,
    ) -> Result<Response<Body>, Failure> {
        let left = give_up.saturating_duration_since(clock::now());
        let found = clock::within(left, self.connect(call, scope)).await;
        let found = found.unwrap_or_else(|| Err(self.too_late(call)));
        let (pick, way) = found.map_err(Failure::Nowhere)?;
        let gone = || Failure::Nowhere(Status::internal("the request's body is gone"));
        let (request, previous) = call.attempt::<P>(clock::now()).ok_or_else(gone)?;
        let endpoint = Arc::clone(pick.endpoint());
        let (service, instance) = (self.service.name(), &endpoint.instance().id);
        let span = tracing::debug_span!("attempt", service, instance, attempt = previous + 1);
        let attempt = Attempt::begin(pick, call);
        match self.send(call, &way, request, endpoint.address()).instrument(span).await {
            Ok(answer) => {
                let began = attempt.began();
                let mut answer = attempt.answered(answer);
                answer.extensions_mut().insert(ServedBy { endpoint, attempts: previous + 1 });
                let checked = Failure::check(answer);
                if checked.is_ok() {
                    call.note_answered(began);
                }
                checked
            }
            Err(SendError::Connect(error)) => {
                drop(attempt.unsent());
                call.note_unsent();
                endpoint.record(Outcome::Unreachable, Duration::ZERO);
                let status = Status::unavailable(error.to_string());
                call.tried().note(&endpoint, error);
                Err(Failure::Unreached(status))
            }
            Err(SendError::Unsent) => {
                drop(attempt.unsent());
                call.note_unsent();
                // Another connection to the same place may do, once.
                call.tried().note_closed(&endpoint);
                way.forget(&endpoint);
                Err(Failure::Unsent(connection::unsent_status(&endpoint.address())))
            }
            Err(SendError::ConnectionLost(error)) => {
                drop(attempt.lost());
                way.forget(&endpoint);
                Err(Failure::Lost(connection::lost_status(&endpoint.address(), &*error)))
            }
            Err(SendError::Stale(error)) => {
                drop(attempt.unsent());
                Err(Failure::Lost(connection::lost_status(&endpoint.address(), &*error)))
            }
            Err(SendError::InvalidResponse(reason)) => {
                drop(attempt.served());
                Err(Failure::Unusable(reason.status(&endpoint.address())))
            }
        }
    }
}
