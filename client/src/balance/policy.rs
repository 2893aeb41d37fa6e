//! The interface of a balancing policy: it draws two candidates, and prefers one of them. Health,
//! filters and slow start are handled elsewhere.

use super::{
    choice::{Choice, Eligibility},
    random::Randomness,
};
use crate::endpoint::{Endpoint, Tick, WeightedEndpoints};

/// A way to choose among candidates. Each type of the folder `policies` is one.
pub(super) trait BalancingPolicy: Default {
    /// Creates the policy; one that counts its picks starts with `turn`.
    fn starting_at(turn: u64) -> Self {
        let _ = turn;
        Self::default()
    }

    /// Draws two candidates of a list that is not empty. They may be the same. Default: both at
    /// random, by weight.
    #[inline]
    fn draw(&self, endpoints: &WeightedEndpoints, random: &Randomness) -> (usize, usize) {
        endpoints.draw(random.next(), random.next())
    }

    /// Returns whether a call should go to `second` rather than `first`. Default: never.
    #[inline]
    fn prefers_second(
        endpoints: &WeightedEndpoints,
        first: usize,
        second: usize,
        now: Tick,
    ) -> bool {
        let _ = (endpoints, first, second, now);
        false
    }

    /// Chooses an eligible candidate; none if the policy found none. Default: the preferred one of
    /// two. A policy that maps calls to candidates, by a key, overrides it.
    #[inline]
    fn choose<S: Fn(&Endpoint) -> bool>(&self, choice: &Choice<'_, '_, S>) -> Option<usize> {
        let (first, second) = self.draw(choice.endpoints, choice.random);
        let is_first = match choice.eligibility(first) {
            Eligibility::ProbeDue(at) if choice.take_probe(first, at) => return Some(first),
            Eligibility::Eligible => true,
            Eligibility::ProbeDue(_) | Eligibility::Ineligible => false,
        };
        let is_second = match choice.eligibility(second) {
            Eligibility::ProbeDue(at) if choice.take_probe(second, at) => return Some(second),
            Eligibility::Eligible => true,
            Eligibility::ProbeDue(_) | Eligibility::Ineligible => false,
        };
        match (is_first, is_second) {
            (true, true) => Some(prefer::<Self>(choice.endpoints, first, second, choice.now)),
            (true, false) => Some(first),
            (false, true) => Some(second),
            (false, false) => None,
        }
    }
}

/// Returns the candidate that the policy `P` prefers.
#[inline]
pub(super) fn prefer<P: BalancingPolicy>(
    endpoints: &WeightedEndpoints,
    first: usize,
    second: usize,
    now: Tick,
) -> usize {
    if P::prefers_second(endpoints, first, second, now) { second } else { first }
}
