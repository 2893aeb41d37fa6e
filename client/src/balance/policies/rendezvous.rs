//! The instance that a key belongs to: the one whose hash with the key is highest (D. Thaler and C.
//! Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998), so that an instance that
//! comes or goes moves no key but its own. Bounded load (V. Mirrokni, M. Thorup, M. Zadimoghaddam,
//! "Consistent Hashing with Bounded Loads", 2018) passes over those that have too much to do.

use crate::{
    balance::{
        choice::{Choice, Eligibility},
        policy::BalancingPolicy,
    },
    endpoint::{Admission, Endpoint, WeightedEndpoints, Weights, scale_index},
    runtime::hash::mix,
};

/// How far above the mean an instance's calls in flight may be.
const LOAD_MAX: f32 = 1.25;
/// How many instances stand for all where the mean is taken.
const SAMPLE_MAX: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Rendezvous;

impl BalancingPolicy for Rendezvous {
    /// Chooses by the call's key; a call without one has a random key.
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
        // A probe is taken by the call that is it, and not by each that passes by.
        let is_taken = |index: &usize| match endpoints.as_slice()[*index].admission(choice.now) {
            Admission::Probe(at) => !choice.take_probe(*index, at),
            Admission::Admitted | Admission::Ejected => false,
        };
        let first = owner(true);
        if first.as_ref().is_some_and(is_taken) { owner(false) } else { first }
    }
}

/// Returns the place of the instance for `key` among those that are admitted; none where none is. Looks at
/// the hashes of all.
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

/// Whether an instance has more calls in flight than its share of one call more than there are, and a
/// quarter. `random` is from 0 to 2^64.
fn is_overloaded(endpoints: &WeightedEndpoints, index: usize, random: u64) -> bool {
    let in_flight = endpoints.as_slice()[index].in_flight();
    // One at a time is no overload.
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

/// The admitted place with the highest score. Admission is asked for seldom: only of those that are
/// higher than all before.
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

/// The score by which each gets keys in proportion to its weight (C. Schindelhauer and G. Schomaker,
/// "Weighted Distributed Hash Tables", 2005).
fn score(hash: u64, weight: f32) -> f64 {
    // From 0 to 1, neither of them.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}
