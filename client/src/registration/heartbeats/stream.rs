//! One stream of heartbeats, as its task and the registrations on it share it: its phase, and the heartbeats
//! that wait to be sent.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::registry::{RegistryConnection, RequestFailure};

/// The most leases that a registry takes in one heartbeat.
const LEASES_MAX: usize = 65_536;

/// One stream, from the attempt to open it until it breaks. Its task ends when it is broken, or when no
/// seat on it is left.
#[derive(Debug)]
pub(super) struct HeartbeatStream {
    pub(super) phase: watch::Sender<StreamPhase>,
    /// At most one for each seat that is taken.
    pub(super) pending: Mutex<Vec<PendingHeartbeat>>,
    pub(super) added: Notify,
    /// What it runs over, once there is a connection.
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

/// How a stream ended.
#[derive(Clone, Debug)]
pub(crate) enum StreamBreak {
    /// It broke.
    Failed {
        failure: RequestFailure,
        /// From 0 to 1, the same for all who lived on the stream: they come back together, over one
        /// stream again, instead of one attempt after the other.
        random: f64,
    },
    /// It is well, but heartbeats return to the first registry.
    Moved,
}

/// A heartbeat that waits to go out, or for its answer.
#[derive(Debug)]
pub(super) struct PendingHeartbeat {
    pub(super) lease_id: u64,
    pub(super) result: oneshot::Sender<Renewal>,
}

/// What a heartbeat came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Renewal {
    Renewed,
    /// The lease does not live.
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

    /// What is broken stays so.
    pub(super) fn advance(&self, next: StreamPhase) {
        self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, StreamPhase::Broken(_));
            if goes_on {
                *phase = next;
            }
            goes_on
        });
    }

    /// How it broke, where it has.
    pub(super) fn break_reason(&self) -> Option<StreamBreak> {
        match &*self.phase.borrow() {
            StreamPhase::Broken(broken) => Some(broken.clone()),
            _ => None,
        }
    }

    /// Takes what is due, as much as a message holds.
    pub(super) fn take_pending(&self) -> Vec<PendingHeartbeat> {
        let mut due = lock(&self.pending);
        // Nobody waits for these any more.
        due.retain(|due| !due.result.is_closed());
        let first = due.len().min(LEASES_MAX);
        let rest = due.split_off(first);
        std::mem::replace(&mut due, rest)
    }

    /// Waits until something is due, and takes it. Cancel safe.
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

/// Waits until `line` is broken. Cancel safe.
pub(super) async fn broken(stream: &HeartbeatStream) -> StreamBreak {
    stream.broken.cancelled().await;
    stream.break_reason().expect("it is broken before the token tells so")
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_goes_out_in_messages_that_a_registry_takes_the_oldest_first() {
        let stream = HeartbeatStream::new();
        let mut responses = Vec::new();
        for lease_id in 0..LEASES_MAX as u64 + 10 {
            let (result, response) = oneshot::channel();
            lock(&stream.pending).push(PendingHeartbeat { lease_id, result });
            responses.push(response);
        }
        // Nobody waits for the first any more.
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
