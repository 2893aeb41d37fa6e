//! The instances that a call was sent to. Never lets a call return to an instance that takes no
//! connection.

use std::sync::Arc;

use crate::{endpoint::Endpoint, transport::ConnectError};

/// The instances of a call's attempts.
#[derive(Default)]
pub(crate) struct TriedInstances {
    /// Instances that took no connection.
    unreachable: Vec<Arc<Endpoint>>,
    last_error: Option<ConnectError>,
    /// Instances whose connection had ended before the call was sent.
    closed: Vec<Arc<Endpoint>>,
    /// Instances that an attempt was meant for.
    chosen: Vec<Arc<Endpoint>>,
    /// The place of the latest one among them.
    latest: usize,
}

fn contains(endpoints: &[Arc<Endpoint>], endpoint: &Endpoint) -> bool {
    endpoints.iter().any(|one| one.is_at(endpoint))
}

impl TriedInstances {
    /// Returns whether this instance took no connection.
    pub(crate) fn is_unreachable(&self, endpoint: &Endpoint) -> bool {
        contains(&self.unreachable, endpoint)
    }

    /// Returns whether an attempt was meant for this instance.
    pub(crate) fn was_chosen(&self, endpoint: &Endpoint) -> bool {
        contains(&self.chosen, endpoint)
    }

    /// Returns whether an attempt was meant for any instance.
    pub(crate) fn has_chosen(&self) -> bool {
        !self.chosen.is_empty()
    }

    /// Returns the number of instances that took no connection.
    pub(crate) fn unreachable_count(&self) -> usize {
        self.unreachable.len()
    }

    /// Returns the latest connect error.
    pub(crate) fn last_error(&self) -> Option<&ConnectError> {
        self.last_error.as_ref()
    }

    /// Returns the instance of the latest attempt.
    pub(crate) fn latest(&self) -> Option<Arc<Endpoint>> {
        self.chosen.get(self.latest).cloned()
    }

    pub(crate) fn choose(&mut self, endpoint: &Arc<Endpoint>) {
        let place = self.chosen.iter().position(|one| one.is_at(endpoint));
        self.latest = place.unwrap_or(self.chosen.len());
        if place.is_none() {
            self.chosen.push(Arc::clone(endpoint));
        }
    }

    pub(crate) fn record_unreachable(&mut self, endpoint: &Arc<Endpoint>, error: ConnectError) {
        self.unreachable.push(Arc::clone(endpoint));
        self.last_error = Some(error);
    }

    /// Records that a connection ended before the call was sent; the second time the instance
    /// counts as unreachable.
    pub(crate) fn record_closed(&mut self, endpoint: &Arc<Endpoint>) {
        if contains(&self.closed, endpoint) {
            let address = endpoint.address().into();
            self.record_unreachable(endpoint, ConnectError::Closed { address });
        } else {
            self.closed.push(Arc::clone(endpoint));
        }
    }
}
