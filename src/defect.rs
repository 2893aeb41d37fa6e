//! Defects that can be planted, to test what has to find them. Without the feature `failpoints` there
//! are none, and nothing is left of the questions.

/// Whether a defect is planted.
#[cfg(feature = "failpoints")]
pub(crate) fn planted(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    false
}

/// Whether a defect is planted.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn planted(_name: &str) -> bool {
    false
}
