//! Defects that tests plant, to prove that the simulation finds them.
//!
//! Invariant: without the feature `failpoints` there is none, and the checks compile to nothing.

/// Returns whether the defect `name` is planted.
#[cfg(feature = "failpoints")]
pub fn planted(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    false
}

/// Returns whether the defect `name` is planted: never, without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn planted(_name: &str) -> bool {
    false
}
