//! The randomness of a balancer: the thread's, or a repeatable sequence from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::hash::mix;

/// 2^64 divided by the golden ratio: its multiples, modulo 2^64, fill the range evenly.
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug, Default)]
pub(super) struct Randomness {
    seeded: Option<AtomicU64>,
}

impl Randomness {
    /// Creates a sequence that is the same in each run.
    pub(super) fn seeded(start: u64) -> Self {
        Self { seeded: Some(AtomicU64::new(start)) }
    }

    #[inline]
    pub(super) fn next(&self) -> u64 {
        match &self.seeded {
            None => fastrand::u64(..),
            Some(state) => mix(state.fetch_add(GOLDEN, Ordering::Relaxed)),
        }
    }
}
