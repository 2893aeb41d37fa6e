//! Renews leases, for calls and streams. Writes only the lease table: no queue, no disk, no watch.

use std::{collections::HashSet, sync::Arc};

use tokio::task::yield_now;

use super::PublishedState;
use crate::{model::LeaseId, registry::StreamId};

/// The leases that are renewed before a yield: a large heartbeat must not delay other tasks.
const LEASES_PER_YIELD: usize = 4096;
/// The leases that a stream tracks before it first drops the inactive ones.
const TRACKED_MIN: usize = 1024;

/// A stream that renews leases. When it is dropped, the leases that were last renewed over it have
/// their grace left.
#[derive(Debug)]
pub struct KeepAlive {
    shared: Arc<PublishedState>,
    stream: StreamId,
    /// The leases renewed over it that were active then.
    leases: HashSet<u64>,
    /// The number of tracked leases at which inactive ones are dropped: twice as many as were
    /// active at the last time, so that a stream of changing leases does not grow.
    tracked_max: usize,
}

impl KeepAlive {
    pub(super) fn open(shared: Arc<PublishedState>) -> Self {
        let stream = shared.leases.open_stream();
        Self { shared, stream, leases: HashSet::new(), tracked_max: TRACKED_MIN }
    }

    /// Renews leases as [`super::Engine::renew`] does, over the stream.
    pub async fn renew(&mut self, leases: &[u64]) -> Vec<u64> {
        let (table, stream) = (Arc::clone(&self.shared.leases), self.stream);
        let now = self.shared.clock.tick();
        // Tracked first: a stream that breaks during a renewal breaks for all of its leases.
        self.leases.extend(leases);
        let unknown = renew_each(leases, |lease| table.renew_over(stream, lease, now)).await;
        for lease in &unknown {
            self.leases.remove(lease);
        }
        if self.leases.len() > self.tracked_max {
            self.leases.retain(|lease| table.is_active(LeaseId::from_bits(*lease)));
            self.tracked_max = TRACKED_MIN.max(2 * self.leases.len());
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

/// Renews leases one by one. Returns the inactive ones.
pub(super) async fn renew_each(leases: &[u64], renew: impl Fn(LeaseId) -> bool) -> Vec<u64> {
    let mut unknown = Vec::new();
    for (turn, leases) in leases.chunks(LEASES_PER_YIELD).enumerate() {
        if turn > 0 {
            yield_now().await;
        }
        unknown.extend(leases.iter().filter(|lease| !renew(LeaseId::from_bits(**lease))));
    }
    unknown
}

#[cfg(test)]
mod tests {
    use waypost_core::testing::{content, id, key, terms};
    use waypost_serving::tasks::Tasks;

    use super::*;
    use crate::{
        clock::Clock,
        engine::Engine,
        model::Limits,
        registry::{LeaseSeed, Outcome, Target},
        store::MemoryStore,
    };

    #[tokio::test]
    async fn stream_of_changing_leases_does_not_grow() {
        let tasks = Tasks::default();
        let limits = Limits::default();
        let (store, nothing) = MemoryStore::open();
        let engine = Engine::start(
            store,
            nothing,
            LeaseSeed::repeatable(1),
            &limits,
            Clock::start(),
            &tasks,
        )
        .unwrap();
        let mut stream = engine.keep_alive();
        let mut lasting = Vec::new();
        for number in 0..3 * TRACKED_MIN {
            let id = id(&format!("i{number}"));
            let outcome = engine.register(key("n/s"), id, content(1), terms(60_000)).await;
            let Ok(Outcome::Registered { lease, .. }) = outcome else { panic!("{outcome:?}") };
            assert!(stream.renew(&[lease.bits()]).await.is_empty());
            if number < 10 {
                lasting.push(lease.bits());
            } else {
                engine.deregister(Target::Lease(lease)).await.unwrap();
            }
            assert!(stream.leases.len() <= TRACKED_MIN);
        }
        assert!(lasting.iter().all(|lease| stream.leases.contains(lease)), "they are active");
    }
}
