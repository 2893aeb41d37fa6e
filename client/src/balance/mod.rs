//! Chooses an instance for each call. The choice itself is pure (`peak_ewma`, `least_request`,
//! `rendezvous`, `round_robin`); here it is tied to a counter, to randomness, and to who is left alone.
//! It must never choose what takes no traffic, nor find none where there is one.

mod context;
mod least_request;
mod peak_ewma;
mod pick;
mod rendezvous;
mod round_robin;
mod selection;
mod zones;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use self::context::matches;
pub(crate) use self::selection::{Candidates, Selection, Subset};
pub use self::{
    context::{CallKey, PickContext},
    pick::{Outcome, Pick},
};
use crate::{
    endpoint::{Endpoint, Field, Gate, Tick},
    runtime::hash::mix,
};

/// 2^64 divided by the golden ratio: steps of it come near every place of a circle soon.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

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
    /// The one of two random ones, drawn by weight, that is likely to answer sooner. The first one gets
    /// the call where it has none in flight and is not clearly slower: an idle service shares its calls by
    /// weight, whatever small differences there are. Otherwise the one gets it that has less to do,
    /// `(calls in flight + 1/2) / weight`, times its latency where that is clearly worse: more than four
    /// times that of the other, and more than 4 ms.
    ///
    /// The latency is an average that a single slow answer at most doubles, and that is forgiven with
    /// time (1 / e is left after 2.5 s) where no answer confirms it. A failure counts at once as a slow
    /// answer, a newcomer is as quick as half of the others. How long a caller takes to send its request
    /// does not count. Goes by what calls [report](Pick::report). The default.
    #[default]
    PeakEwma,
    /// The one with fewer calls in flight, `(calls in flight + 1/2) / weight`, of two random ones (M.
    /// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). The first, drawn by
    /// weight, keeps the call where it has none in flight. For calls that last, such as streams.
    LeastRequest,
    /// A random one. The most even spread over many callers that know nothing of each other.
    Random,
    /// One after the other. The most even spread where calls cost the same.
    RoundRobin,
    /// The one that the call's [key](PickContext::key) belongs to, as long as it does not have more
    /// than 1.25 times its share of the calls in flight (of all instances, or of 32 that stand for
    /// them): then the one that comes next for the key. All processes choose the same, and an
    /// instance that comes or goes moves only the keys that are its own (weighted rendezvous hashing
    /// with bounded load). So do those of an instance that fails, until it does well again, as far as
    /// the others can take them. Takes a time that grows with the number of instances, about a
    /// nanosecond or two for each. Calls without a key go to random ones.
    Rendezvous,
}

/// Why there is no instance for a call.
///
/// ```
/// use waypost_client::{NoInstance, PickContext, Service};
///
/// let none = Service::fixed([]).pick(&PickContext::new()).unwrap_err();
/// assert_eq!(none, NoInstance::Empty);
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
    /// Instances take traffic, but none that the filter of the handle or of the call lets through.
    #[error("none of the service's {serving} instances that take traffic passes the filter")]
    AllFiltered {
        /// How many take traffic.
        serving: usize,
    },
    /// All that would do fail and are left alone, and the call wants
    /// [healthy ones only](PickContext::healthy_only).
    #[error("all of the service's {instances} instances that would do fail")]
    AllEjected {
        /// How many would do.
        instances: usize,
    },
}

/// One user's way through the instances.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: Policy,
    /// Calls so far, from a random start, so that many processes don't begin at the same instance.
    turn: AtomicU64,
    /// Where randomness comes from that is to be the same each time.
    seeded: Option<AtomicU64>,
}

/// What one choice goes by.
struct Choice<'a, 'b, S> {
    candidates: &'a Candidates,
    field: &'a Field,
    context: &'b PickContext<'b>,
    suits: &'b S,
    now: Tick,
}

impl Balancer {
    pub(crate) fn new(policy: Policy) -> Self {
        // Half of the range, so that it does not wrap within any process's life.
        Self { policy, turn: AtomicU64::new(fastrand::u64(..u64::MAX / 2)), seeded: None }
    }

    /// One that makes the same choices each time.
    pub(crate) fn seeded(policy: Policy, seed: u64) -> Self {
        let start = mix(seed);
        Self { policy, turn: AtomicU64::new(start / 2), seeded: Some(AtomicU64::new(start)) }
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Chooses from `candidates` for a call. Constant time for most policies, no lock.
    #[inline]
    pub(crate) fn pick(
        &self,
        candidates: &Candidates,
        context: &PickContext<'_>,
    ) -> Result<Pick, NoInstance> {
        let found = match context.filter {
            None => self.find(candidates, context, &|_| true),
            Some(filter) => self.find(candidates, context, &|endpoint| matches(filter, endpoint)),
        };
        match found {
            Ok(Some(endpoint)) => Ok(Pick::of(endpoint)),
            Ok(None) => Err(NoInstance::AllFiltered { serving: candidates.serving }),
            Err(none) => Err(none),
        }
    }

    /// Chooses from `candidates` what `suits` the call; none where none does.
    pub(crate) fn pick_where(
        &self,
        candidates: &Candidates,
        context: &PickContext<'_>,
        suits: impl Fn(&Endpoint) -> bool,
    ) -> Result<Option<Pick>, NoInstance> {
        let all = |endpoint: &Endpoint| {
            context.filter.is_none_or(|filter| matches(filter, endpoint)) && suits(endpoint)
        };
        Ok(self.find(candidates, context, &all)?.map(Pick::of))
    }

    /// Any that suits, and that is not to be left alone; where most are to be, any.
    #[inline]
    fn find<'a>(
        &self,
        candidates: &'a Candidates,
        context: &PickContext<'_>,
        suits: &impl Fn(&Endpoint) -> bool,
    ) -> Result<Option<&'a Arc<Endpoint>>, NoInstance> {
        let field = &*candidates.preferred;
        if field.is_empty() {
            return Err(candidates.none());
        }
        let now = candidates.group.latest();
        let choice = Choice { candidates, field, context, suits, now };
        match self.choose(&choice) {
            Some(index) => Ok(Some(&field.endpoints()[index])),
            None => self.find_beyond(&choice),
        }
    }

    /// The same where the first draw gave none.
    #[cold]
    fn find_beyond<'a, S: Fn(&Endpoint) -> bool>(
        &self,
        choice: &Choice<'a, '_, S>,
    ) -> Result<Option<&'a Arc<Endpoint>>, NoInstance> {
        let mut choice = Choice { ..*choice };
        let mut chosen = self.choose_healthy(&choice);
        if chosen.is_none()
            && let Some(others) = &choice.candidates.others
        {
            choice.field = others;
            chosen = self.choose(&choice).or_else(|| self.choose_healthy(&choice));
        }
        if chosen.is_none() {
            chosen = self.choose_regardless(&choice)?;
        }
        Ok(chosen.map(|index| &choice.field.endpoints()[index]))
    }

    /// The place of one that is not left alone; none where those that come first are.
    #[inline]
    fn choose<S: Fn(&Endpoint) -> bool>(&self, choice: &Choice<'_, '_, S>) -> Option<usize> {
        match self.policy {
            Policy::Rendezvous => self.choose_by_key(choice),
            _ => self.choose_drawn(choice),
        }
    }

    /// The better of two that are drawn; none where both are to be left alone.
    #[inline]
    fn choose_drawn<S: Fn(&Endpoint) -> bool>(&self, choice: &Choice<'_, '_, S>) -> Option<usize> {
        let (first, second) = self.draw(choice);
        let is_first = match self.admits(choice, first) {
            Admission::Probe => return Some(first),
            Admission::Yes => true,
            Admission::No => false,
        };
        match (is_first, self.admits(choice, second)) {
            (_, Admission::Probe) => Some(second),
            (true, Admission::Yes) => Some(self.better(choice, first, second)),
            (true, Admission::No) => Some(first),
            (false, Admission::Yes) => Some(second),
            (false, Admission::No) => None,
        }
    }

    fn choose_by_key<S: Fn(&Endpoint) -> bool>(&self, choice: &Choice<'_, '_, S>) -> Option<usize> {
        let field = choice.field;
        let key = choice.context.key.unwrap_or_else(|| self.random());
        let choose = |probe: bool| {
            rendezvous::choose(field, key, |index| {
                let endpoint = &field.endpoints()[index];
                (choice.suits)(endpoint)
                    && match endpoint.gate(choice.now) {
                        Gate::Open => {
                            !self.is_too_cold(choice, endpoint)
                                && !rendezvous::is_overloaded(field, index, self.random())
                        }
                        Gate::Probe(_) => probe,
                        Gate::Closed => false,
                    }
            })
        };
        // A probe is taken by the call that is it, and not by each that passes by.
        let is_taken = |index: &usize| match field.endpoints()[*index].gate(choice.now) {
            Gate::Probe(at) => !field.endpoints()[*index].take_probe(at, choice.now),
            Gate::Open | Gate::Closed => false,
        };
        let first = choose(true);
        if first.as_ref().is_some_and(is_taken) { choose(false) } else { first }
    }

    /// Where the draws found none, as they do where few suit: looks at all. None where more than half of
    /// them are left alone.
    fn choose_healthy<S: Fn(&Endpoint) -> bool>(
        &self,
        choice: &Choice<'_, '_, S>,
    ) -> Option<usize> {
        let (field, now) = (choice.field, choice.now);
        let suiting = || field.endpoints().iter().filter(|endpoint| (choice.suits)(endpoint));
        let open = suiting().filter(|endpoint| endpoint.gate(now) == Gate::Open).count();
        if open * 2 < suiting().count() {
            return None;
        }
        let is_open = |endpoint: &Endpoint| endpoint.gate(now) == Gate::Open;
        self.choose_from(choice, |endpoint| is_open(endpoint) && (choice.suits)(endpoint))
    }

    /// Where most are left alone: any; or, for a call that wants that, one of the few others.
    fn choose_regardless<S: Fn(&Endpoint) -> bool>(
        &self,
        choice: &Choice<'_, '_, S>,
    ) -> Result<Option<usize>, NoInstance> {
        let now = choice.now;
        if !choice.context.healthy_only {
            return Ok(self.choose_from(choice, choice.suits));
        }
        let is_open = |endpoint: &Endpoint| endpoint.gate(now) == Gate::Open;
        let open = self.choose_from(choice, |it| is_open(it) && (choice.suits)(it));
        let endpoints = choice.field.endpoints().iter();
        match endpoints.filter(|endpoint| (choice.suits)(endpoint)).count() {
            instances @ 1.. if open.is_none() => Err(NoInstance::AllEjected { instances }),
            _ => Ok(open),
        }
    }

    /// The better of two such, drawn by weight.
    fn choose_from<S>(
        &self,
        choice: &Choice<'_, '_, S>,
        such: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let (first, second) = choice.field.draw_where(self.random(), self.random(), such)?;
        Some(self.better(choice, first, second))
    }

    /// Two places to choose from, which may be the same.
    #[inline]
    fn draw<S>(&self, choice: &Choice<'_, '_, S>) -> (usize, usize) {
        let field = choice.field;
        if self.policy == Policy::RoundRobin {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            // Where it is not its turn, the call is anyone's: not the next one's alone.
            let other = field.weights().at(self.random());
            return (round_robin::choose(field.weights(), turn), other);
        }
        least_request::draw(field, self.random(), self.random())
    }

    #[inline]
    fn better<S>(&self, choice: &Choice<'_, '_, S>, first: usize, second: usize) -> usize {
        let is_second = match self.policy {
            Policy::PeakEwma => peak_ewma::is_quicker(choice.field, second, first, choice.now),
            Policy::LeastRequest => least_request::is_lighter(choice.field, second, first),
            Policy::Random | Policy::RoundRobin | Policy::Rendezvous => false,
        };
        if is_second { second } else { first }
    }

    #[inline(always)]
    fn admits<S: Fn(&Endpoint) -> bool>(
        &self,
        choice: &Choice<'_, '_, S>,
        index: usize,
    ) -> Admission {
        let (endpoint, now) = (&choice.field.endpoints()[index], choice.now);
        if !(choice.suits)(endpoint) {
            return Admission::No;
        }
        match endpoint.gate(now) {
            Gate::Open if self.is_too_cold(choice, endpoint) => Admission::No,
            Gate::Open => Admission::Yes,
            Gate::Probe(at) if endpoint.take_probe(at, now) => Admission::Probe,
            Gate::Probe(_) | Gate::Closed => Admission::No,
        }
    }

    /// Whether a newcomer is spared this call.
    fn is_too_cold<S>(&self, choice: &Choice<'_, '_, S>, endpoint: &Endpoint) -> bool {
        let slow_start_ms = choice.candidates.slow_start_ms;
        slow_start_ms > 0 && self.is_spared(endpoint.warmth(choice.now, slow_start_ms))
    }

    #[inline(never)]
    fn is_spared(&self, warmth: f32) -> bool {
        warmth < 1.0 && (self.random() >> 40) as f32 >= warmth * (1 << 24) as f32
    }

    #[inline]
    fn random(&self) -> u64 {
        match &self.seeded {
            None => fastrand::u64(..),
            Some(state) => mix(state.fetch_add(GOLDEN, Ordering::Relaxed)),
        }
    }
}

impl Candidates {
    /// Why there are none.
    fn none(&self) -> NoInstance {
        match (self.instances, self.serving) {
            (0, _) => NoInstance::Empty,
            (instances, 0) => NoInstance::NoneServing { instances },
            (_, serving) => NoInstance::AllFiltered { serving },
        }
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

#[cfg(test)]
mod shares;
#[cfg(test)]
mod tests;
