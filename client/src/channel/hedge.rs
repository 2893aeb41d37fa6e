//! A second attempt beside one that is slow: whichever is answered first counts, and the other one is
//! cancelled. It must never make more than one of them, nor any that the budget does not pay for.

use std::time::Duration;

use futures_util::future::{self, Either};
use http::Response;
use tonic::body::Body;
use tower::retry::budget::Budget;

use super::{BalancedChannel, call::Call, failure::Failure, protocol::Protocol, route::Scope};
use crate::clock::{self, Instant};

impl<P: Protocol> BalancedChannel<P> {
    /// Sends a call, and where it is not answered within `delay`, to another instance too. Where one of
    /// them fails, the other one decides.
    pub(super) async fn hedge(
        &self,
        call: &Call,
        give_up: Instant,
        delay: Duration,
    ) -> Result<Response<Body>, Failure> {
        // Two at once both need all of the body.
        let may_double = call.is_at_hand().await;
        // Boxed: what waits for it stays small.
        let mut first = Box::pin(self.attempt(call, Scope::All, give_up));
        if !may_double {
            return first.await;
        }
        if let Some(answered) = clock::within(delay, &mut first).await {
            return answered;
        }
        if !self.has_another(call) || !self.budget.withdraw() {
            return first.await;
        }
        let second = Box::pin(self.attempt(call, Scope::Others, give_up));
        match future::select(first, second).await {
            Either::Left((Ok(answer), _)) | Either::Right((Ok(answer), _)) => Ok(answer),
            Either::Left((Err(failure), second)) => second.await.map_err(|other| failure.or(other)),
            Either::Right((Err(other), first)) => first.await.map_err(|failure| failure.or(other)),
        }
    }
}
