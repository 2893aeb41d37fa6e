//! One after the other, in proportion to weights. Pure: the turn is passed in.

use super::GOLDEN;
use crate::endpoint::Weights;

/// Whose turn it is. With equal weights plain rotation. Else steps of the golden ratio along the
/// line of weights: the sequence that fills it most evenly at every moment (V. Sós, 1958; D. Knuth,
/// "The Art of Computer Programming" 6.4), so that each gets its share, spread out, in constant
/// time and with no schedule to keep.
pub(super) fn choose(weights: &Weights, turn: u64) -> usize {
    match weights {
        Weights::Equal { count } => (turn % (*count).max(1) as u64) as usize,
        Weights::Table { .. } => weights.at(turn.wrapping_mul(GOLDEN)),
    }
}
