//! The one of two random choices that will answer sooner. Pure: randomness and time are passed in.

use std::sync::Arc;

use crate::{
    endpoint::Endpoint,
    timeline::Tick,
    weights::{Weights, other_than},
};

/// The weight at which a call in flight counts once.
const WEIGHT_USUAL: f32 = 100.0;
/// Latencies below this are equal, in nanoseconds: about a millisecond.
const EQUAL_BELOW: f32 = 1_048_576.0;

/// Draws two of `candidates`, of which there is at least one, in proportion to weights: so that equals
/// share calls by weight.
pub(super) fn draw(
    candidates: &[Arc<Endpoint>],
    weights: &Weights,
    first: u64,
    second: u64,
) -> (usize, usize) {
    let (one, other) = (weights.at(first), weights.at(second));
    if one != other || candidates.len() < 2 {
        return (one, other);
    }
    (one, other_than(one, candidates.len(), second.rotate_left(32)))
}

/// Whether a call to `other` is likely to be answered sooner than one to `chosen`.
pub(super) fn is_quicker(other: &Endpoint, chosen: &Endpoint, now: Tick) -> bool {
    let (theirs, ours) = (other.latency().nanos(now), chosen.latency().nanos(now));
    let (their_load, our_load) = (load(other), load(chosen));
    // Where one is not known yet, the calls in flight tell.
    if theirs > 0.0 && ours > 0.0 {
        coarse(theirs) * their_load < coarse(ours) * our_load
    } else {
        their_load < our_load
    }
}

/// The power of two below it: among equals, chance must not send all calls to the one that was a
/// little quicker last.
fn coarse(nanos: f32) -> f32 {
    const EXPONENT: u32 = 0xff80_0000;
    f32::from_bits(nanos.max(EQUAL_BELOW).to_bits() & EXPONENT)
}

/// With one call more, for its weight.
fn load(endpoint: &Endpoint) -> f32 {
    1.0 + endpoint.in_flight() as f32 * WEIGHT_USUAL / endpoint.weight() as f32
}
