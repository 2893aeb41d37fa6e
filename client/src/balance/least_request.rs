//! The less loaded of two random choices (Mitzenmacher 2001). Pure: randomness is passed in.

use crate::endpoint::{Field, other_than};

/// Draws two of the field, which is not empty.
///
/// Both in proportion to weights: the first so that an idle service shares its calls exactly by weight,
/// the second so that a share that was made small on purpose stays small where it has nothing to do.
#[inline]
pub(super) fn draw(field: &Field, first: u64, second: u64) -> (usize, usize) {
    let (one, other) = (field.weights().at(first), field.weights().at(second));
    if one != other || field.len() < 2 {
        return (one, other);
    }
    (one, other_than(one, field.len(), second.rotate_left(32)))
}

/// Whether the call is relatively lighter on `other` than on `chosen`, which is busy.
pub(super) fn is_lighter(field: &Field, other: usize, chosen: usize) -> bool {
    let in_flight = |index: usize| field.endpoints()[index].in_flight();
    let busy = in_flight(chosen);
    busy > 0 && field.load(other, in_flight(other)) < field.load(chosen, busy)
}
