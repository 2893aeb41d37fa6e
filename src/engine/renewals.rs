//! Renews leases, for calls and for streams. It touches the lease table alone: no queue, no disk, no
//! watch.

use std::{collections::HashSet, sync::Arc};

use tokio::task::yield_now;

use super::Shared;
use crate::{model::LeaseId, registry::StreamId};

/// Leases renewed in one go: a large heartbeat then yields, so that it delays nobody.
const LEASES_A_TURN: usize = 4096;

/// A stream over which leases are renewed. When it goes, those that were last renewed over it have
/// their grace left.
#[derive(Debug)]
pub struct KeepAlive {
    shared: Arc<Shared>,
    stream: StreamId,
    /// The leases renewed over it that lived then.
    leases: HashSet<u64>,
}

impl KeepAlive {
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        let stream = shared.leases.open_stream();
        Self { shared, stream, leases: HashSet::new() }
    }

    /// As [`super::Engine::renew`], over the stream.
    pub async fn renew(&mut self, leases: &[u64]) -> Vec<u64> {
        let (table, stream) = (Arc::clone(&self.shared.leases), self.stream);
        let now = self.shared.clock.tick();
        // Noted first: a stream that breaks amid a renewal breaks for all of it.
        self.leases.extend(leases);
        let unknown = unknown(leases, |lease| table.renew_over(stream, lease, now)).await;
        for lease in &unknown {
            self.leases.remove(lease);
        }
        unknown
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let now = self.shared.clock.tick();
        for lease in &self.leases {
            self.shared.leases.break_stream(self.stream, LeaseId::from_bits(*lease), now);
        }
    }
}

/// Renews one lease after the other; those that do not live.
pub(super) async fn unknown(leases: &[u64], renew: impl Fn(LeaseId) -> bool) -> Vec<u64> {
    let mut unknown = Vec::new();
    for (turn, leases) in leases.chunks(LEASES_A_TURN).enumerate() {
        if turn > 0 {
            yield_now().await;
        }
        unknown.extend(leases.iter().filter(|lease| !renew(LeaseId::from_bits(**lease))));
    }
    unknown
}
