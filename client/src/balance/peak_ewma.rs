//! The one of two random choices that will answer sooner. Pure: time is passed in.

use crate::{field::Field, timeline::Tick};

/// Latencies below this are equal, in nanoseconds: about a millisecond.
const EQUAL_BELOW: f32 = 1_048_576.0;

/// Whether a call to `other` is likely to be answered sooner than one to `chosen`.
#[inline]
pub(super) fn is_quicker(field: &Field, other: usize, chosen: usize, now: Tick) -> bool {
    let nanos = |index: usize| field.endpoints()[index].latency().nanos(now);
    let (theirs, ours) = (nanos(other), nanos(chosen));
    let (their_load, our_load) = (load(field, other), load(field, chosen));
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
#[inline]
fn load(field: &Field, index: usize) -> f32 {
    1.0 + field.endpoints()[index].in_flight() as f32 * field.weights().inverse(index)
}
