//! The balancer of a handle: a policy and its randomness. Lock-free; constant time for most
//! policies.

use std::sync::Arc;

use super::{
    choice::Choice,
    context::{PickContext, matches},
    no_instance::NoInstance,
    pick::Pick,
    policies::{AnyPolicy, Policy},
    random::Randomness,
    selection::Candidates,
};
use crate::{endpoint::Endpoint, runtime::hash::mix};

/// Picks by one policy.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: AnyPolicy,
    random: Randomness,
}

impl Balancer {
    pub(crate) fn new(policy: Policy) -> Self {
        // A random start, so that many processes don't start with the same instance. From half of
        // the range, so that it does not wrap within the life of a process.
        let turn = fastrand::u64(..u64::MAX / 2);
        Self { policy: AnyPolicy::new(policy, turn), random: Randomness::default() }
    }

    /// Creates a balancer that makes the same choices in each run.
    pub(crate) fn seeded(policy: Policy, seed: u64) -> Self {
        let start = mix(seed);
        Self { policy: AnyPolicy::new(policy, start / 2), random: Randomness::seeded(start) }
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy.policy()
    }

    /// Picks from `candidates` for a call.
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
            Ok(Some(endpoint)) => Ok(Pick::new(endpoint)),
            Ok(None) => Err(NoInstance::AllFiltered { serving: candidates.serving }),
            Err(none) => Err(none),
        }
    }

    /// Picks from the `candidates` that the predicate accepts; none if it accepts none.
    pub(crate) fn pick_where(
        &self,
        candidates: &Candidates,
        context: &PickContext<'_>,
        accepts: impl Fn(&Endpoint) -> bool,
    ) -> Result<Option<Pick>, NoInstance> {
        let all = |endpoint: &Endpoint| {
            context.filter.is_none_or(|filter| matches(filter, endpoint)) && accepts(endpoint)
        };
        Ok(self.find(candidates, context, &all)?.map(Pick::new))
    }

    #[inline]
    fn find<'a>(
        &self,
        candidates: &'a Candidates,
        context: &PickContext<'_>,
        accepts: &impl Fn(&Endpoint) -> bool,
    ) -> Result<Option<&'a Arc<Endpoint>>, NoInstance> {
        let endpoints = &*candidates.preferred;
        if endpoints.is_empty() {
            return Err(candidates.no_instance());
        }
        let (random, now) = (&self.random, candidates.stats.latest());
        self.policy.search(&Choice { candidates, endpoints, context, accepts, random, now })
    }
}
