//! The state of one heartbeat stream, shared by its task and the registrations on it: its phase,
//! and the heartbeats to send.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::registry::{RegistryConnection, RequestFailure};

/// The most leases in one heartbeat message.
const LEASES_MAX: usize = 65_536;

/// One stream, from the attempt to open it to its end. Its task ends when the stream has failed or
/// has no registration any more.
#[derive(Debug)]
pub(super) struct HeartbeatStream {
    pub(super) phase: watch::Sender<StreamPhase>,
    /// At most one for each registration.
    pub(super) pending: Mutex<Vec<PendingHeartbeat>>,
    pub(super) added: Notify,
    /// Set once connected.
    pub(super) connection: OnceLock<RegistryConnection>,
    pub(super) broken: CancellationToken,
}

#[derive(Clone, Debug)]
pub(super) enum StreamPhase {
    Connecting,
    Opening,
    Open,
    Broken(StreamBreak),
}

/// The end of a stream.
#[derive(Clone, Debug)]
pub(crate) enum StreamBreak {
    /// The stream failed.
    Failed {
        failure: RequestFailure,
        /// From 0 to 1, the same for all registrations on the stream: they reconnect together, over
        /// one stream, instead of one attempt after the other.
        random: f64,
    },
    /// Heartbeats move to another connection.
    Moved,
}

/// A heartbeat that waits to be sent, or for its response.
#[derive(Debug)]
pub(super) struct PendingHeartbeat {
    pub(super) lease_id: u64,
    pub(super) result: oneshot::Sender<Renewal>,
}

/// The result of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Renewal {
    Renewed,
    /// The lease is not active any more.
    Unknown,
}

impl StreamBreak {
    pub(super) fn failed(failure: RequestFailure) -> Self {
        Self::Failed { failure, random: fastrand::f64() }
    }
}

impl HeartbeatStream {
    pub(super) fn new() -> Self {
        Self {
            phase: watch::Sender::new(StreamPhase::Connecting),
            pending: Mutex::default(),
            added: Notify::new(),
            connection: OnceLock::new(),
            broken: CancellationToken::new(),
        }
    }

    /// Moves to the next phase, unless the stream has failed.
    pub(super) fn advance(&self, next: StreamPhase) {
        self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, StreamPhase::Broken(_));
            if goes_on {
                *phase = next;
            }
            goes_on
        });
    }

    /// Returns how the stream ended, if it has.
    pub(super) fn break_reason(&self) -> Option<StreamBreak> {
        match &*self.phase.borrow() {
            StreamPhase::Broken(broken) => Some(broken.clone()),
            _ => None,
        }
    }

    /// Takes pending heartbeats, as many as fit into a message.
    pub(super) fn take_pending(&self) -> Vec<PendingHeartbeat> {
        let mut due = lock(&self.pending);
        // Their registrations are gone.
        due.retain(|due| !due.result.is_closed());
        let first = due.len().min(LEASES_MAX);
        let rest = due.split_off(first);
        std::mem::replace(&mut due, rest)
    }

    /// Waits for pending heartbeats, and takes them. Cancel safe.
    pub(super) async fn next_pending(&self) -> Vec<PendingHeartbeat> {
        loop {
            let due = self.take_pending();
            if !due.is_empty() {
                return due;
            }
            self.added.notified().await;
        }
    }
}

/// Waits until the stream has failed. Cancel safe.
pub(super) async fn broken(stream: &HeartbeatStream) -> StreamBreak {
    stream.broken.cancelled().await;
    stream.break_reason().expect("the phase is set before the token is cancelled")
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_heartbeats_are_sent_in_messages_of_valid_size_the_oldest_first() {
        let stream = HeartbeatStream::new();
        let mut responses = Vec::new();
        for lease_id in 0..LEASES_MAX as u64 + 10 {
            let (result, response) = oneshot::channel();
            lock(&stream.pending).push(PendingHeartbeat { lease_id, result });
            responses.push(response);
        }
        // The registration of the first is gone.
        drop(responses.remove(0));
        let ids = |heartbeats: Vec<PendingHeartbeat>| -> Vec<u64> {
            heartbeats.iter().map(|heartbeat| heartbeat.lease_id).collect()
        };
        let first = ids(stream.take_pending());
        assert_eq!((first.len(), first[0]), (LEASES_MAX, 1));
        let rest = ids(stream.take_pending());
        assert_eq!((rest.len(), rest[0]), (9, LEASES_MAX as u64 + 1));
        assert!(stream.take_pending().is_empty());
    }
}
