//! Renews leases, for calls and streams. Writes only the lease table: no queue, no disk, no watch.

use std::{collections::HashSet, sync::Arc};

use tokio::task::yield_now;
use waypost_core::failpoint::planted;

use super::PublishedState;
use crate::{
    auth::{Caller, LeaseRights},
    model::LeaseId,
    registry::StreamId,
};

/// The leases that are renewed before a yield: a large heartbeat must not delay other tasks.
const LEASES_PER_YIELD: usize = 4096;
/// The leases that a stream tracks before it first drops the inactive ones.
const TRACKED_MIN: usize = 1024;

/// A stream that renews leases. When it is dropped, the leases that were last renewed over it have
/// their grace left.
#[derive(Debug)]
pub struct KeepAlive {
    shared: Arc<PublishedState>,
    caller: Caller,
    stream: StreamId,
    /// The leases renewed over it that were active then.
    leases: HashSet<u64>,
    /// The number of tracked leases at which inactive ones are dropped: twice as many as were
    /// active at the last time, so that a stream of changing leases does not grow.
    tracked_max: usize,
}

impl KeepAlive {
    pub(super) fn open(shared: Arc<PublishedState>, caller: Caller) -> Self {
        let stream = shared.leases.open_stream();
        Self { shared, caller, stream, leases: HashSet::new(), tracked_max: TRACKED_MIN }
    }

    /// Renews leases as [`super::Engine::renew`] does, over the stream.
    pub async fn renew(&mut self, leases: &[u64]) -> Vec<u64> {
        // Tracked first: a stream that breaks during a renewal breaks for all of its leases.
        self.leases.extend(leases);
        let unknown = renew_each(&self.shared, &self.caller, Some(self.stream), leases).await;
        for lease in &unknown {
            self.leases.remove(lease);
        }
        if self.leases.len() > self.tracked_max {
            let table = &self.shared.leases;
            self.leases.retain(|lease| table.is_active(LeaseId::from_bits(*lease)));
            self.tracked_max = TRACKED_MIN.max(2 * self.leases.len());
        }
        unknown
    }
}

impl KeepAlive {
    /// Ends the stream by the server's decision: no lease of it has a shorter life for that.
    pub fn end(mut self) {
        self.leases.clear();
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let now = self.shared.clock.tick();
        let PublishedState { leases: table, directory, .. } = &*self.shared;
        // The stream may have renewed leases that its caller has no right to any more.
        let mut rights = self.caller.lease_rights();
        for lease in self.leases.iter().map(|lease| LeaseId::from_bits(*lease)) {
            let allowed = table
                .service_in(lease.slot())
                .is_some_and(|service| rights.allow(service, |number| directory.key(number)));
            if allowed || planted("refusal-breaks-stream") {
                table.break_stream(self.stream, lease, now);
            }
        }
    }
}

/// Renews leases one by one, over a stream or by a call. Returns those that are not active or not
/// of a service that the caller may register. Yields at intervals.
pub(super) async fn renew_each(
    shared: &PublishedState,
    caller: &Caller,
    stream: Option<StreamId>,
    leases: &[u64],
) -> Vec<u64> {
    let now = shared.clock.tick();
    let mut unknown = Vec::new();
    for (turn, leases) in leases.chunks(LEASES_PER_YIELD).enumerate() {
        if turn > 0 {
            yield_now().await;
        }
        let PublishedState { leases: table, directory, .. } = shared;
        let is_unknown = |rights: &mut LeaseRights<'_>, lease| {
            let allowed = |service| rights.allow(service, |number| directory.key(number));
            let renewed = match stream {
                Some(stream) => table.renew_over_if(stream, lease, now, allowed),
                None => table.renew_if(lease, now, allowed),
            };
            !renewed
        };
        let mut rights = caller.lease_rights();
        unknown.extend(
            leases.iter().filter(|lease| is_unknown(&mut rights, LeaseId::from_bits(**lease))),
        );
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
        registry::{LeaseSeed, Outcome},
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
        let caller = Caller::unrestricted();
        let mut stream = engine.keep_alive(caller.clone());
        let mut lasting = Vec::new();
        for number in 0..3 * TRACKED_MIN {
            let id = id(&format!("i{number}"));
            let outcome = {
                let content = content(1);
                let permit = caller.register(key("n/s"), &id, &content.host()).unwrap();
                engine.register(permit, id, content, terms(60_000)).await
            };
            let Ok(Outcome::Registered { lease, .. }) = outcome else { panic!("{outcome:?}") };
            assert!(stream.renew(&[lease.bits()]).await.is_empty());
            if number < 10 {
                lasting.push(lease.bits());
            } else {
                engine.deregister_leased(&caller, lease).await.unwrap();
            }
            assert!(stream.leases.len() <= TRACKED_MIN);
        }
        assert!(lasting.iter().all(|lease| stream.leases.contains(lease)), "they are active");
    }
}
