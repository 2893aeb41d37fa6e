//! The one of two random instances that is likely to respond sooner for its weight.
//!
//! The first, drawn by weight, keeps the call unless it has calls in flight or is clearly slower.
//! So an idle service shares its calls exactly by weight, with any number of instances. Otherwise
//! both are compared by their load for their weight ([`WeightedEndpoints::load`]), times the
//! latency if one is clearly slower.

use crate::{
    balance::policy::BalancingPolicy,
    endpoint::{EQUAL_BELOW, Estimate, Tick, WeightedEndpoints},
};

/// The ratio of latencies from which an instance is clearly slower. Smaller differences show in the
/// calls in flight, and are chance at low traffic.
const SLOWER_FROM: f32 = 4.0;

#[derive(Debug, Default)]
pub(crate) struct PeakEwma;

impl BalancingPolicy for PeakEwma {
    #[inline]
    fn prefers_second(
        endpoints: &WeightedEndpoints,
        first: usize,
        second: usize,
        now: Tick,
    ) -> bool {
        let endpoint = |index: usize| &endpoints.as_slice()[index];
        let (theirs, ours) =
            (endpoint(second).latency().estimate(), endpoint(first).latency().estimate());
        let busy = endpoint(first).in_flight();
        let slower = is_slower(ours, theirs);
        if !slower && busy == 0 {
            return false;
        }
        let their_load = endpoints.load(second, endpoint(second).in_flight());
        let our_load = endpoints.load(first, busy);
        if slower || is_slower(theirs, ours) {
            let (factor, their_factor) = (factor(ours, theirs, now), factor(theirs, ours, now));
            // A slow instance whose latency has decayed counts as idle.
            return (factor > 1.0 || busy > 0) && their_load * their_factor < our_load * factor;
        }
        their_load < our_load
    }
}

/// Returns whether `one` is clearly slower, without a look at the time.
#[inline]
fn is_slower(one: Estimate, than: Estimate) -> bool {
    one.nanos() > SLOWER_FROM * than.nanos().max(EQUAL_BELOW)
}

/// Returns the ratio of the latencies if `one` is clearly slower and was so lately, 1 otherwise.
/// Only the slower one decays: time makes no instance faster than it was.
#[inline(never)]
fn factor(one: Estimate, than: Estimate, now: Tick) -> f32 {
    let (nanos, other) = (one.decayed(now), than.nanos().max(EQUAL_BELOW));
    let is_known = than.nanos() > 0.0;
    if is_known && nanos > SLOWER_FROM * other { nanos / other } else { 1.0 }
}
