//! A call on its way to a picked instance: counted as in flight, and told to the balance in the end,
//! however it ends. It must never be told twice.

use std::{sync::Arc, time::Duration};

use crate::{
    balance::{NoInstance, Pick, PickContext},
    endpoint::{Endpoint, Outcome},
    runtime::clock::{self, Instant},
    service::Service,
};

/// Why a call through a layer of this crate failed.
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
    /// There is none to send it to.
    #[error("no instance for the call: {0}")]
    NoInstance(#[source] NoInstance),
    /// The picked instance registered an address that no URI can have.
    #[error("{address:?} is no address")]
    Address {
        /// The address.
        address: Box<str>,
    },
    /// The service behind the layer failed.
    #[error(transparent)]
    Call(E),
}

/// A call until it is answered or given up.
#[derive(Debug)]
pub(super) struct PickedCall {
    /// Gone once it was answered.
    pick: Option<Pick>,
    endpoint: Arc<Endpoint>,
    began: Instant,
}

impl PickedCall {
    /// Picks an instance, now.
    pub(super) fn start(service: &Service, context: &PickContext<'_>) -> Result<Self, NoInstance> {
        let pick = service.pick_now(context)?;
        let endpoint = Arc::clone(pick.endpoint());
        Ok(Self { endpoint, pick: Some(pick), began: clock::now() })
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// It is over, and came to this.
    pub(super) fn end(self, outcome: Outcome) {
        self.into_responded().end(outcome);
    }

    /// The answer has begun: that is how long it took, and what it comes to is to be seen.
    pub(super) fn into_responded(mut self) -> RespondedCall {
        let pick = self.pick.take().expect("it is gone with the call alone");
        RespondedCall { pick, took: clock::now() - self.began, is_recorded: false }
    }
}

impl Drop for PickedCall {
    /// Nobody waits any more. It says nothing of how it would have ended.
    fn drop(&mut self) {
        if self.pick.is_some() {
            self.endpoint.record_abandoned(clock::now() - self.began);
        }
    }
}

/// A call whose answer is being read.
#[derive(Debug)]
pub(super) struct RespondedCall {
    pick: Pick,
    took: Duration,
    is_recorded: bool,
}

impl RespondedCall {
    /// It came to nothing, whatever else is read of it.
    #[cfg(feature = "http")]
    pub(super) fn record_failure(&mut self) {
        self.record(Outcome::Failure);
    }

    /// It is over, and came to this.
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
    /// Who stops reading has been answered.
    fn drop(&mut self) {
        self.record(Outcome::Success);
    }
}
