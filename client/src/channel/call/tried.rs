//! Where a call was tried. It must never let a call come back to an instance that takes no connection.

use std::sync::Arc;

use crate::{endpoint::Endpoint, transport::ConnectError};

/// The instances that a call has to do with.
#[derive(Default)]
pub(crate) struct TriedInstances {
    /// Those that took no connection.
    unreachable: Vec<Arc<Endpoint>>,
    last_error: Option<ConnectError>,
    /// Those whose connection had ended when the call was to be sent.
    closed: Vec<Arc<Endpoint>>,
    /// Those that it was meant for.
    chosen: Vec<Arc<Endpoint>>,
    /// The place among them of the one that it was meant for last.
    latest: usize,
}

fn contains(endpoints: &[Arc<Endpoint>], endpoint: &Endpoint) -> bool {
    endpoints.iter().any(|one| one.is_at(endpoint))
}

impl TriedInstances {
    /// Whether this instance took no connection.
    pub(crate) fn is_unreachable(&self, endpoint: &Endpoint) -> bool {
        contains(&self.unreachable, endpoint)
    }

    /// Whether the call was meant for this instance before.
    pub(crate) fn was_chosen(&self, endpoint: &Endpoint) -> bool {
        contains(&self.chosen, endpoint)
    }

    /// Returns whether it was meant for any instance before.
    pub(crate) fn has_chosen(&self) -> bool {
        !self.chosen.is_empty()
    }

    /// How many took no connection.
    pub(crate) fn unreachable_count(&self) -> usize {
        self.unreachable.len()
    }

    /// Why the last one took none.
    pub(crate) fn last_error(&self) -> Option<&ConnectError> {
        self.last_error.as_ref()
    }

    /// The instance that it was meant for last.
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

    /// Notes that the call was not taken over a connection; the second time the instance counts as one
    /// that takes none.
    pub(crate) fn record_closed(&mut self, endpoint: &Arc<Endpoint>) {
        if contains(&self.closed, endpoint) {
            let address = endpoint.address().into();
            self.record_unreachable(endpoint, ConnectError::Closed { address });
        } else {
            self.closed.push(Arc::clone(endpoint));
        }
    }
}
