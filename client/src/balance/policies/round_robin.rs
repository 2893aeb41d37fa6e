//! One after the other, in proportion to weights.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    balance::{
        policy::BalancingPolicy,
        random::{GOLDEN, Randomness},
    },
    endpoint::{WeightedEndpoints, Weights},
};

#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    /// The number of picks.
    turn: AtomicU64,
}

impl BalancingPolicy for RoundRobin {
    fn starting_at(turn: u64) -> Self {
        Self { turn: AtomicU64::new(turn) }
    }

    /// Draws the endpoint whose turn it is, and a random one: if the first is ejected, all others
    /// share its calls instead of its successor alone.
    #[inline]
    fn draw(&self, endpoints: &WeightedEndpoints, random: &Randomness) -> (usize, usize) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let other = endpoints.weights().at(random.next());
        (next(endpoints.weights(), turn), other)
    }
}

/// Returns the place of a turn. Equal weights rotate. Otherwise the turns step along the line of
/// weights by the golden ratio: the sequence that fills the line most evenly at every moment (V.
/// Sós, 1958; D. Knuth, "The Art of Computer Programming" 6.4). So each place gets its share,
/// spread out, in constant time and without a schedule.
fn next(weights: &Weights, turn: u64) -> usize {
    match weights {
        Weights::Equal { count } => (turn % (*count).max(1) as u64) as usize,
        Weights::Table { .. } => weights.at(turn.wrapping_mul(GOLDEN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::{counts, random, snapshot};

    #[test]
    fn equal_weights_rotate() {
        let snapshot = snapshot(&[100, 100, 100]);
        let weights = snapshot.serving_endpoints().weights();
        let turns: Vec<usize> = (0..6).map(|turn| next(weights, turn)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn round_robin_honours_weights_at_every_moment() {
        let snapshot = snapshot(&[100, 300, 50, 50]);
        let weights = snapshot.serving_endpoints().weights();
        let mut random = random();
        let start = random.u64(..u64::MAX / 2);
        for calls in [10, 100, 1_000, 100_000] {
            let counts = counts(4, calls, |call| next(weights, start + call));
            for (count, share) in counts.iter().zip([0.2, 0.6, 0.1, 0.1]) {
                let off = (*count as f64 - calls as f64 * share).abs();
                assert!(off <= 6.0, "{counts:?} of {calls}");
            }
        }
    }

    #[test]
    fn round_robin_spreads_a_heavy_instance_out() {
        let snapshot = snapshot(&[300, 100]);
        let weights = snapshot.serving_endpoints().weights();
        let mut streak = 0;
        for turn in 0..10_000 {
            streak = if next(weights, turn) == 0 { streak + 1 } else { 0 };
            assert!(streak <= 4, "three in four, but {streak} in a row");
        }
    }
}
