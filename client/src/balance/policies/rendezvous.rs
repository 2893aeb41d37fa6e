//! The instance that owns a key: the one with the highest hash of both (D. Thaler and C.
//! Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998), so that an instance that
//! is added or removed moves only its own keys. Bounded load (V. Mirrokni, M. Thorup, M.
//! Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018) passes over overloaded instances.

use crate::{
    balance::{
        choice::{Choice, Eligibility},
        policy::BalancingPolicy,
    },
    endpoint::{Admission, Endpoint, WeightedEndpoints, Weights, scale_index},
    runtime::hash::mix,
};

/// The ratio to the mean that an instance's calls in flight may reach.
const LOAD_MAX: f32 = 1.25;
/// The size of the sample that the mean is taken from.
const SAMPLE_MAX: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Rendezvous;

impl BalancingPolicy for Rendezvous {
    /// Chooses by the call's key, or a random one.
    fn choose<S: Fn(&Endpoint) -> bool>(&self, choice: &Choice<'_, '_, S>) -> Option<usize> {
        let (endpoints, random) = (choice.endpoints, choice.random);
        let key = choice.context.key.unwrap_or_else(|| random.next());
        let owner = |probes: bool| {
            owner(endpoints, key, |index| match choice.eligibility(index) {
                Eligibility::Eligible => !is_overloaded(endpoints, index, random.next()),
                Eligibility::ProbeDue(_) => probes,
                Eligibility::Ineligible => false,
            })
        };
        // Only the call that goes to the instance takes the probe, not each that passes it.
        let is_taken = |index: &usize| match endpoints.as_slice()[*index].admission(choice.now) {
            Admission::Probe(at) => !choice.take_probe(*index, at),
            Admission::Admitted | Admission::Ejected => false,
        };
        let first = owner(true);
        if first.as_ref().is_some_and(is_taken) { owner(false) } else { first }
    }
}

/// Returns the place of the admitted instance that owns `key`; none if none is admitted. Reads all
/// hashes.
fn owner(
    endpoints: &WeightedEndpoints,
    key: u64,
    mut admits: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let hashes = endpoints.hashes().iter().map(|hash| mix(key ^ hash));
    match endpoints.weights() {
        Weights::Equal { .. } => highest(hashes.map(|hash| hash as f64), &mut admits),
        weights @ Weights::Table { .. } => {
            let scored =
                hashes.enumerate().map(|(index, hash)| score(hash, weights.relative(index)));
            highest(scored, &mut admits)
        }
    }
}

/// Returns whether an instance has more than 1.25 times its share of the calls in flight, this one
/// included. `random` is from 0 to 2^64.
fn is_overloaded(endpoints: &WeightedEndpoints, index: usize, random: u64) -> bool {
    let in_flight = endpoints.as_slice()[index].in_flight();
    // One call at a time is no overload.
    if in_flight == 0 {
        return false;
    }
    let from = scale_index(random, endpoints.len());
    let sample = endpoints.len().min(SAMPLE_MAX);
    let (mut calls, mut shares) = (1.0, 0.0);
    for index in (from..from + sample).map(|index| index % endpoints.len()) {
        calls += endpoints.as_slice()[index].in_flight() as f32;
        shares += endpoints.weights().relative(index);
    }
    let share = endpoints.weights().relative(index) / shares;
    in_flight as f32 >= (LOAD_MAX * calls * share).ceil()
}

/// Returns the admitted place with the highest score. Checks admission only for a score above all
/// before.
fn highest(
    scores: impl Iterator<Item = f64>,
    admits: &mut impl FnMut(usize) -> bool,
) -> Option<usize> {
    let mut best = None;
    let mut top = f64::NEG_INFINITY;
    for (index, score) in scores.enumerate() {
        if score > top && admits(index) {
            (best, top) = (Some(index), score);
        }
    }
    best
}

/// Returns a score that gives each place keys in proportion to its weight (C. Schindelhauer and G.
/// Schomaker, "Weighted Distributed Hash Tables", 2005).
fn score(hash: u64, weight: f32) -> f64 {
    // Between 0 and 1, exclusive.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}
