//! Defects that tests plant, to prove that the simulation finds them. Without the feature
//! `failpoints` none exists, and the checks compile to nothing.

/// True where the defect `name` is planted.
#[cfg(feature = "failpoints")]
pub fn planted(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    false
}

/// True where the defect `name` is planted: never, without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn planted(_name: &str) -> bool {
    false
}
