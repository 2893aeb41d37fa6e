//! A call to a picked instance. Invariant: it counts as in flight, and its endpoint records one
//! outcome, however it ends.

use std::{sync::Arc, time::Duration};

use crate::{
    balance::{NoInstance, Pick, PickContext},
    endpoint::{Endpoint, Outcome},
    runtime::clock::{self, Instant},
    service::Service,
};

/// The error of a call through a layer of this crate.
///
/// ```
/// use waypost_client::{CallError, NoInstance};
///
/// let error: CallError<std::io::Error> = CallError::NoInstance(NoInstance::Empty);
/// assert_eq!(error.to_string(), "no instance for the call: the service has no instances");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// There is no instance.
    #[error("no instance for the call: {0}")]
    NoInstance(#[source] NoInstance),
    /// The picked instance registered an address that is invalid in a URI.
    #[error("{address:?} is not a valid address")]
    Address {
        /// The address.
        address: Box<str>,
    },
    /// The inner service failed.
    #[error(transparent)]
    Call(E),
}

/// A call, until its response or its end.
#[derive(Debug)]
pub(super) struct PickedCall {
    /// Taken by the response.
    pick: Option<Pick>,
    endpoint: Arc<Endpoint>,
    began: Instant,
}

impl PickedCall {
    /// Picks an instance, and starts the call.
    pub(super) fn start(service: &Service, context: &PickContext<'_>) -> Result<Self, NoInstance> {
        let pick = service.pick_now(context)?;
        let endpoint = Arc::clone(pick.endpoint());
        Ok(Self { endpoint, pick: Some(pick), began: clock::now() })
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Ends the call with an outcome.
    pub(super) fn end(self, outcome: Outcome) {
        self.into_responded().end(outcome);
    }

    /// Records the response time at the response's head; the outcome follows.
    pub(super) fn into_responded(mut self) -> RespondedCall {
        let pick = self.pick.take().expect("it is gone with the call alone");
        RespondedCall { pick, took: clock::now() - self.began, is_recorded: false }
    }
}

impl Drop for PickedCall {
    /// Records an abandoned call, with an unknown outcome.
    fn drop(&mut self) {
        if self.pick.is_some() {
            self.endpoint.record_abandoned(clock::now() - self.began);
        }
    }
}

/// A call with a response that is being read.
#[derive(Debug)]
pub(super) struct RespondedCall {
    pick: Pick,
    took: Duration,
    is_recorded: bool,
}

impl RespondedCall {
    /// Records a failure, whatever follows.
    #[cfg(feature = "http")]
    pub(super) fn record_failure(&mut self) {
        self.record(Outcome::Failure);
    }

    /// Ends the call with an outcome.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.record(outcome);
    }

    fn record(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        self.pick.endpoint().record(outcome, self.took);
    }
}

impl Drop for RespondedCall {
    /// Counts a response that is not read to the end as a success.
    fn drop(&mut self) {
        self.record(Outcome::Success);
    }
}
