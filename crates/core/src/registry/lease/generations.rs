//! The generations of new leases, by a cryptographic generator (ChaCha with 12 rounds; Bernstein
//! 2008): from the ids of its own leases a client can't compute those of others.
//!
//! Pure: the seed is passed in.

use std::fmt;

use rand_chacha::{
    ChaCha12Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::renewal::Stamp;
use crate::model::LeaseId;

/// The seed of a registry's lease ids: 256 random bits, other ones in each process.
#[derive(Clone, Copy)]
pub struct LeaseSeed([u8; 32]);

impl LeaseSeed {
    /// Takes 32 bytes of the system's generator.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// Makes the seed of a test or simulation, whose lease ids need not be secret.
    pub fn repeatable(number: u64) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        Self(seed)
    }
}

impl fmt::Debug for LeaseSeed {
    /// Omits the bits: they are a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LeaseSeed")
    }
}

/// A sequence of generations. A copy continues as the original does.
#[derive(Clone)]
pub(in crate::registry) struct Generations(ChaCha12Rng);

impl Generations {
    pub(super) fn new(seed: LeaseSeed) -> Self {
        Self(ChaCha12Rng::from_seed(seed.0))
    }

    /// Returns the next generation of a slot whose last lease had the generation `before`. Their
    /// stamps differ: a renewal of the last lease that is under way can't renew the next one.
    pub(super) fn next(&mut self, before: u64) -> u64 {
        loop {
            let generation = self.0.next_u64() % LeaseId::GENERATIONS;
            if !Stamp::have_equal_generations(generation, before) {
                return generation;
            }
        }
    }
}

impl fmt::Debug for Generations {
    /// Omits the state, from which all further lease ids follow.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Generations")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_the_seed_changes_the_generations() {
        let first = |seed| Generations::new(LeaseSeed::new(seed)).next(0);
        for bit in 0..256 {
            let mut seed = [0; 32];
            seed[bit / 8] = 1 << (bit % 8);
            assert_ne!(first(seed), first([0; 32]), "bit {bit}");
        }
    }

    #[test]
    fn next_generation_differs_in_the_bits_of_the_stamp() {
        let drawn = Generations::new(LeaseSeed::repeatable(7)).next(0);
        let mut again = Generations::new(LeaseSeed::repeatable(7));
        let equal_in_the_stamp = drawn ^ (1 << 33);
        assert_ne!(again.next(equal_in_the_stamp), drawn);
    }

    #[test]
    fn debug_output_has_no_bits() {
        let seed = LeaseSeed::repeatable(7);
        assert_eq!(format!("{seed:?} {:?}", Generations::new(seed)), "LeaseSeed Generations");
    }
}
