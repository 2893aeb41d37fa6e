//! One choice: its candidates, call and time, and the eligibility of each candidate. Independent of
//! policies.

use super::{context::PickContext, random::Randomness, selection::Candidates};
use crate::endpoint::{Admission, Endpoint, Tick, WeightedEndpoints};

/// The inputs of one choice.
pub(super) struct Choice<'a, 'b, S> {
    pub(super) candidates: &'a Candidates,
    /// The part of the candidates to choose from.
    pub(super) endpoints: &'a WeightedEndpoints,
    pub(super) context: &'b PickContext<'b>,
    /// Returns whether the call may go to an endpoint: it matches the filter, and has not failed
    /// the call yet.
    pub(super) accepts: &'b S,
    pub(super) random: &'b Randomness,
    pub(super) now: Tick,
}

/// The eligibility of an endpoint for a call.
#[derive(Clone, Copy)]
pub(super) enum Eligibility {
    Eligible,
    /// Ejected, and a probe has been due since this time: one call may go there.
    ProbeDue(Tick),
    Ineligible,
}

impl<S: Fn(&Endpoint) -> bool> Choice<'_, '_, S> {
    #[inline(always)]
    pub(super) fn eligibility(&self, index: usize) -> Eligibility {
        let endpoint = &self.endpoints.as_slice()[index];
        if !(self.accepts)(endpoint) {
            return Eligibility::Ineligible;
        }
        match endpoint.admission(self.now) {
            Admission::Admitted if self.is_skipped_by_slow_start(endpoint) => {
                Eligibility::Ineligible
            }
            Admission::Admitted => Eligibility::Eligible,
            Admission::Probe(at) => Eligibility::ProbeDue(at),
            Admission::Ejected => Eligibility::Ineligible,
        }
    }

    /// Makes the call the probe of an endpoint. Returns false if another call is the probe.
    #[inline]
    pub(super) fn take_probe(&self, index: usize, at: Tick) -> bool {
        self.endpoints.as_slice()[index].take_probe(at, self.now)
    }

    /// Returns whether slow start withholds this call from the endpoint.
    fn is_skipped_by_slow_start(&self, endpoint: &Endpoint) -> bool {
        let slow_start_ms = self.candidates.slow_start_ms;
        slow_start_ms > 0 && self.is_above(endpoint.warmth(self.now, slow_start_ms))
    }

    /// Returns whether a random number from 0 to 1 is `warmth` or more.
    #[inline(never)]
    fn is_above(&self, warmth: f32) -> bool {
        warmth < 1.0 && (self.random.next() >> 40) as f32 >= warmth * (1 << 24) as f32
    }
}
