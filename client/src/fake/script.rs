//! The behaviour of a registry towards all requests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Response;
use tonic::{Status, body::Body};

use crate::runtime::clock;

/// The behaviour that the test set.
#[derive(Debug, Default)]
pub(super) struct Script {
    behaviour: Mutex<Behaviour>,
}

#[derive(Clone, Debug, Default)]
struct Behaviour {
    delay: Duration,
    refusal: Option<Status>,
}

impl Script {
    pub(super) fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    pub(super) fn refuse(&self, refusal: Status) {
        self.lock().refusal = Some(refusal);
    }

    pub(super) fn reset(&self) {
        *self.lock() = Behaviour::default();
    }

    /// Returns the refusal, if requests are refused.
    pub(super) fn refusal(&self) -> Option<Response<Body>> {
        self.lock().refusal.clone().map(Status::into_http)
    }

    /// Waits for the delay of responses.
    pub(super) async fn wait_delay(&self) {
        let delay = self.lock().delay;
        if !delay.is_zero() {
            clock::sleep(delay).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Behaviour> {
        // No code under the lock panics.
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
