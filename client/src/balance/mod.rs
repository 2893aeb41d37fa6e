//! Chooses an instance for each call. The choice itself is pure (`peak_ewma`, `power_of_two`,
//! `round_robin`); here it is tied to a counter, to randomness, and to who is left alone. It must
//! never choose what takes no traffic, nor find none where there is one.

mod peak_ewma;
mod pick;
mod power_of_two;
mod round_robin;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use self::pick::{Outcome, Pick};
use crate::{
    endpoint::{Endpoint, Gate},
    snapshot::Snapshot,
    timeline::Tick,
};

/// How calls are spread over the instances of a service.
///
/// All ways honour weights (an instance of weight 200 gets twice the calls of one of 100) and leave
/// out what takes no traffic (weight 0, or a status other than `UP` and `SUSPECT`).
///
/// All leave alone for a while what fails: after five failures in a row, or as many failures as
/// successes among 20 calls and more within 10 s, for 30 s; after a refused connection for a second; of
/// a `SUSPECT` instance one failure is enough. The time doubles with each repetition (up to 5 min, or
/// 30 s), and one call finds out whether it is over. Where more than half of the instances fail, they
/// are called all the same: the few that are left must not be overrun.
///
/// ```
/// use waypost_client::{Policy, Service};
///
/// assert_eq!(Policy::default(), Policy::PeakEwma);
/// let by_turns = Service::fixed([]).with_policy(Policy::RoundRobin);
/// # drop(by_turns);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Of two random ones the one that is likely to answer sooner: by the latency of its calls before
    /// (an average that jumps to what is worse and comes down with time, as Finagle's `PeakEwma`) and
    /// its calls in flight. A failure counts as a slow answer, a newcomer as quick as half of the
    /// others. Goes by what calls [report](Pick::report). The default.
    #[default]
    PeakEwma,
    /// The one with fewer calls in flight, relative to its weight, of two random ones (M.
    /// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). For calls that
    /// last, such as streams.
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

    /// Chooses from `snapshot` what `suits`: something that is to be left alone only where nothing
    /// else does. Only where the first few choices don't suit, it looks through all.
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
        let now = snapshot.timeline().latest();
        let is_open = |endpoint: &Endpoint| endpoint.gate(now) == Gate::Open && suits(endpoint);
        let found = around(candidates, is_open).or_else(|| around(candidates, suits));
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
        let (first, second) = match self.policy {
            Policy::PeakEwma => {
                peak_ewma::draw(candidates, weights, fastrand::u64(..), fastrand::u64(..))
            }
            Policy::PowerOfTwo => {
                power_of_two::draw(candidates, weights, fastrand::u64(..), fastrand::u64(..))
            }
            Policy::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let at = |turn| round_robin::choose(weights, turn);
                (at(turn), at(turn.wrapping_add(1)))
            }
        };
        let (first, second) = (&candidates[first], &candidates[second]);
        let now = snapshot.timeline().latest();
        let is_first = match admits(first, now) {
            Admission::Probe => return Ok(first),
            Admission::Yes => true,
            Admission::No => false,
        };
        Ok(match (is_first, admits(second, now)) {
            (_, Admission::Probe) => second,
            (true, Admission::Yes) => self.better(first, second, now),
            (true, Admission::No) => first,
            (false, Admission::Yes) => second,
            (false, Admission::No) => match healthy(candidates, now) {
                Some(endpoint) => endpoint,
                None => self.better(first, second, now),
            },
        })
    }

    fn better<'a>(
        &self,
        first: &'a Arc<Endpoint>,
        second: &'a Arc<Endpoint>,
        now: Tick,
    ) -> &'a Arc<Endpoint> {
        let is_second = match self.policy {
            Policy::PeakEwma => peak_ewma::is_quicker(second, first, now),
            Policy::PowerOfTwo => power_of_two::is_lighter(second, first),
            Policy::RoundRobin => false,
        };
        if is_second { second } else { first }
    }
}

/// Whether an instance takes a call.
#[derive(Clone, Copy)]
enum Admission {
    Yes,
    /// This one, to find out whether it does well again.
    Probe,
    No,
}

fn admits(endpoint: &Endpoint, now: Tick) -> Admission {
    match endpoint.gate(now) {
        Gate::Open => Admission::Yes,
        Gate::Probe(at) if endpoint.take_probe(at, now) => Admission::Probe,
        Gate::Probe(_) | Gate::Closed => Admission::No,
    }
}

/// Any instance that does not fail; none where more than half of them do.
fn healthy(candidates: &[Arc<Endpoint>], now: Tick) -> Option<&Arc<Endpoint>> {
    let is_open = |endpoint: &Endpoint| endpoint.gate(now) == Gate::Open;
    let open = candidates.iter().filter(|endpoint| is_open(endpoint)).count();
    if open * 2 >= candidates.len() { around(candidates, is_open) } else { None }
}

/// The first that suits from a random start on: those behind one that does not must not get all of
/// its calls.
fn around(
    candidates: &[Arc<Endpoint>],
    suits: impl Fn(&Endpoint) -> bool,
) -> Option<&Arc<Endpoint>> {
    let (before, from) = candidates.split_at(fastrand::usize(..candidates.len()));
    from.iter().chain(before).find(|endpoint| suits(endpoint))
}

#[cfg(test)]
mod tests;
