//! Chooses an instance for each call. The choice itself is pure (`round_robin`, `power_of_two`);
//! here it is tied to a counter and to randomness. It must never choose what takes no traffic.

mod pick;
mod power_of_two;
mod round_robin;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use self::pick::Pick;
use crate::snapshot::{Endpoint, Snapshot};

/// How calls are spread over the instances of a service.
///
/// Both ways honour weights (an instance of weight 200 gets twice the calls of one of 100) and leave
/// out what takes no traffic (weight 0, or a status other than `UP` and `SUSPECT`).
///
/// ```
/// use waypost_client::{Policy, Service};
///
/// assert_eq!(Policy::default(), Policy::PowerOfTwo);
/// let by_turns = Service::fixed([]).with_policy(Policy::RoundRobin);
/// # drop(by_turns);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// The one with fewer calls in flight, relative to its weight, of two random ones (M.
    /// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). Adapts to slow
    /// instances and uneven calls. The default.
    #[default]
    PowerOfTwo,
    /// One after the other. The most even spread where calls cost the same.
    RoundRobin,
}

/// Why there is no instance for a call.
///
/// ```
/// use waypost_client::{NoInstance, Service};
/// assert_eq!(Service::fixed([]).pick().unwrap_err(), NoInstance::Empty);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoInstance {
    /// The registry has not told yet: wait for [`Service::ready`](crate::Service::ready).
    #[error("the instances are not known yet")]
    NotReady,
    /// The service has no instances.
    #[error("the service has no instances")]
    Empty,
    /// The service has instances, but none that takes traffic.
    #[error("none of the service's {instances} instances takes traffic")]
    NoneServing {
        /// How many there are.
        instances: usize,
    },
}

/// One user's way through the instances.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: Policy,
    /// Calls so far, from a random start, so that many processes don't begin at the same instance.
    turn: AtomicU64,
}

impl Balancer {
    pub(crate) fn new(policy: Policy) -> Self {
        // Half of the range, so that it does not wrap within any process's life.
        Self { policy, turn: AtomicU64::new(fastrand::u64(..u64::MAX / 2)) }
    }

    /// Chooses from `snapshot`. Constant time, no lock.
    pub(crate) fn pick(&self, snapshot: &Snapshot) -> Result<Pick, NoInstance> {
        self.choose(snapshot).map(|endpoint| Pick::new(Arc::clone(endpoint)))
    }

    /// Chooses from `snapshot` what `suits`. Only where the first few choices don't suit, it looks
    /// through all.
    pub(crate) fn pick_where(
        &self,
        snapshot: &Snapshot,
        suits: impl Fn(&Endpoint) -> bool,
    ) -> Result<Option<Pick>, NoInstance> {
        for _ in 0..4 {
            let endpoint = self.choose(snapshot)?;
            if suits(endpoint) {
                return Ok(Some(Pick::new(Arc::clone(endpoint))));
            }
        }
        let (candidates, _) = snapshot.candidates();
        // From a random start: those behind a broken one must not get all of its calls.
        let (before, from) = candidates.split_at(fastrand::usize(..candidates.len()));
        let found = from.iter().chain(before).find(|endpoint| suits(endpoint));
        Ok(found.map(|endpoint| Pick::new(Arc::clone(endpoint))))
    }

    fn choose<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a Arc<Endpoint>, NoInstance> {
        let (candidates, weights) = snapshot.candidates();
        if candidates.is_empty() {
            return Err(match snapshot.len() {
                0 => NoInstance::Empty,
                instances => NoInstance::NoneServing { instances },
            });
        }
        let index = match self.policy {
            Policy::PowerOfTwo => {
                power_of_two::choose(candidates, weights, fastrand::u64(..), fastrand::u64(..))
            }
            Policy::RoundRobin => {
                round_robin::choose(weights, self.turn.fetch_add(1, Ordering::Relaxed))
            }
        };
        Ok(&candidates[index])
    }
}

#[cfg(test)]
mod tests;
