//! Hashes that are the same in every process and version, because clients must agree on them. Pure.

use std::hash::Hasher;

use fnv::FnvHasher;

/// Hashes bytes: FNV-1a, then [`mix`].
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    mix(hasher.finish())
}

/// Spreads close numbers far apart; a permutation of all numbers (the finalizer of SplitMix64: G.
/// Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_same_for_ever() {
        // FNV-1a of "a".
        assert_eq!(hash(b"a"), mix(0xAF63_DC4C_8601_EC8C));
    }

    #[test]
    fn mix_is_the_same_for_ever() {
        // The first two outputs of SplitMix64 from the seed 0.
        assert_eq!(mix(0x9E37_79B9_7F4A_7C15), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix(0x3C6E_F372_FE94_F82A), 0x6E78_9E6A_A1B9_65F4);
    }
}
