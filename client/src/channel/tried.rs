//! The instances that a call was tried on in vain. It must never let a call come back to one of them.

use std::sync::Arc;

use crate::{connection::ConnectError, endpoint::Endpoint};

/// The instances that took no connection for this call.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) last: Option<ConnectError>,
    /// Those whose connection had ended when the call was to be sent.
    closed: Vec<Arc<Endpoint>>,
}

impl Tried {
    pub(super) fn contains(&self, endpoint: &Endpoint) -> bool {
        self.endpoints.iter().any(|tried| tried.is_at(endpoint))
    }

    pub(super) fn note(&mut self, endpoint: Arc<Endpoint>, error: ConnectError) {
        self.endpoints.push(endpoint);
        self.last = Some(error);
    }

    /// Notes a connection that had ended; the second time the instance counts as tried.
    pub(super) fn note_closed(&mut self, endpoint: Arc<Endpoint>) {
        if self.closed.iter().any(|closed| closed.is_at(&endpoint)) {
            let address = endpoint.address().into();
            self.note(endpoint, ConnectError::Closed { address });
        } else {
            self.closed.push(endpoint);
        }
    }
}
