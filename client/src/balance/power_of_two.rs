//! The less loaded of two random choices (Mitzenmacher 2001). Pure: randomness is passed in.

use std::sync::Arc;

use crate::{
    endpoint::Endpoint,
    weights::{Weights, other_than},
};

/// Draws two of `candidates`, of which there is at least one.
///
/// The first is drawn in proportion to weights, so that an idle service shares its calls exactly by
/// weight. It is kept unless it is busy and the call would be relatively lighter on the second,
/// which is any other one.
pub(super) fn draw(
    candidates: &[Arc<Endpoint>],
    weights: &Weights,
    first: u64,
    second: u64,
) -> (usize, usize) {
    let first = weights.at(first);
    if candidates.len() < 2 {
        return (first, first);
    }
    (first, other_than(first, candidates.len(), second))
}

/// Whether the call is relatively lighter on `other`.
pub(super) fn is_lighter(other: &Endpoint, chosen: &Endpoint) -> bool {
    let busy = chosen.in_flight();
    busy > 0 && with_one_more(other, chosen) < with_one_more(chosen, other)
}

/// The load that `endpoint` would have with one call more, relative to its weight; made an integer
/// by the weight of the one that it is compared with.
fn with_one_more(endpoint: &Endpoint, against: &Endpoint) -> u128 {
    (u128::from(endpoint.in_flight()) + 1) * u128::from(against.weight())
}
