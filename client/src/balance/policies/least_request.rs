//! The less loaded of two random instances (M. Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001).

use crate::{
    balance::policy::BalancingPolicy,
    endpoint::{Tick, WeightedEndpoints},
};

#[derive(Debug, Default)]
pub(crate) struct LeastRequest;

impl BalancingPolicy for LeastRequest {
    /// Prefers the second if the first is busy and has more load.
    #[inline]
    fn prefers_second(endpoints: &WeightedEndpoints, first: usize, second: usize, _: Tick) -> bool {
        let in_flight = |index: usize| endpoints.as_slice()[index].in_flight();
        let busy = in_flight(first);
        busy > 0 && endpoints.load(second, in_flight(second)) < endpoints.load(first, busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{
        policy::prefer,
        tests::{counts, random, snapshot},
    };

    /// Chooses by calls in flight.
    fn lighter(endpoints: &WeightedEndpoints, random: &mut fastrand::Rng) -> usize {
        let (first, second) = endpoints.draw(random.u64(..), random.u64(..));
        prefer::<LeastRequest>(endpoints, first, second, 0)
    }

    #[test]
    fn an_idle_service_shares_by_weight() {
        let snapshot = snapshot(&[100, 300]);
        let endpoints = snapshot.serving_endpoints();
        let mut random = random();
        let counts = counts(2, 100_000, |_| lighter(endpoints, &mut random));
        assert!((74_000..76_000).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn the_busier_of_two_is_avoided() {
        let snapshot = snapshot(&[100, 100]);
        let endpoints = snapshot.serving_endpoints();
        let candidates = endpoints.as_slice();
        candidates[0].begin();
        let mut random = random();
        for _ in 0..1_000 {
            let chosen = lighter(endpoints, &mut random);
            assert_eq!(chosen, 1);
        }
    }

    #[test]
    fn load_counts_relative_to_weight() {
        let snapshot = snapshot(&[100, 300]);
        let endpoints = snapshot.serving_endpoints();
        let candidates = endpoints.as_slice();
        candidates[0].begin();
        for _ in 0..3 {
            candidates[1].begin();
        }
        // (1 + 1/2) / 100 is more than (3 + 1/2) / 300: 15 against 11.7.
        let mut random = random();
        for _ in 0..1_000 {
            let chosen = lighter(endpoints, &mut random);
            assert_eq!(chosen, 1);
        }
    }

    #[test]
    fn calls_that_last_are_spread_evenly() {
        let snapshot = snapshot(&[100; 50]);
        let endpoints = snapshot.serving_endpoints();
        let candidates = endpoints.as_slice();
        let mut random = random();
        for _ in 0..5_000 {
            let chosen = lighter(endpoints, &mut random);
            candidates[chosen].begin();
        }
        let loads: Vec<u32> = candidates.iter().map(|endpoint| endpoint.in_flight()).collect();
        assert!(loads.iter().all(|load| (95..=105).contains(load)), "{loads:?}");
    }

    #[test]
    fn calls_that_last_are_spread_by_weight() {
        let snapshot = snapshot(&[100, 200, 300, 400]);
        let endpoints = snapshot.serving_endpoints();
        let candidates = endpoints.as_slice();
        let mut random = random();
        for _ in 0..10_000 {
            let chosen = lighter(endpoints, &mut random);
            candidates[chosen].begin();
        }
        for (endpoint, share) in candidates.iter().zip([1_000, 2_000, 3_000, 4_000]) {
            assert!(endpoint.in_flight().abs_diff(share) < share / 20, "{}", endpoint.in_flight());
        }
    }

    #[test]
    fn a_tiny_weight_among_heavy_ones_is_not_flooded() {
        let snapshot = snapshot(&[1, 1_000]);
        let endpoints = snapshot.serving_endpoints();
        let candidates = endpoints.as_slice();
        let mut random = random();
        let mut tiny = 0;
        for _ in 0..10 {
            candidates[1].begin();
        }
        for _ in 0..10_000 {
            tiny += usize::from(lighter(endpoints, &mut random) == 0);
        }
        assert!(tiny < 50, "{tiny} of 10,000");
    }
}
