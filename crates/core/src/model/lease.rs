//! A lease: the right to an identity until its TTL ends. Its id contains its place in the lease
//! table.
//!
//! Pure.

use std::{fmt, time::Duration};

/// The id of a lease. From the high bits: the number of the server that granted it (6 bits), the
/// generation of its slot (34), the slot (24). Never 0.
///
/// Slot and generation make a renewal an array access and a comparison. The generation starts at
/// random in each process and grows with each grant of the slot, so that an earlier id never equals
/// a later one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(u64);

impl LeaseId {
    const SLOT_BITS: u32 = 24;
    const GENERATION_BITS: u32 = 34;
    /// The number of slots.
    pub const SLOTS: usize = 1 << Self::SLOT_BITS;
    /// The number of generations of a slot, modulo which they count.
    pub const GENERATIONS: u64 = 1 << Self::GENERATION_BITS;

    /// The id that no lease ever has.
    pub const NONE: Self = Self(0);

    /// Makes the id of a generation of a slot. Bits beyond the width of a part are cut off.
    pub fn new(server: u8, generation: u64, slot: u32) -> Self {
        let server = u64::from(server) << (Self::SLOT_BITS + Self::GENERATION_BITS);
        let generation = (generation % Self::GENERATIONS) << Self::SLOT_BITS;
        Self(server | generation | (u64::from(slot) & (Self::SLOTS as u64 - 1)))
    }

    /// Takes an id from a peer; there may be no such lease.
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the id as a number.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Returns the slot of the lease.
    #[inline]
    pub fn slot(self) -> u32 {
        (self.0 & (Self::SLOTS as u64 - 1)) as u32
    }

    /// Returns the generation of the slot.
    #[inline]
    pub fn generation(self) -> u64 {
        (self.0 >> Self::SLOT_BITS) % Self::GENERATIONS
    }

    /// Returns the number of the server that granted it.
    pub fn server(self) -> u8 {
        (self.0 >> (Self::SLOT_BITS + Self::GENERATION_BITS)) as u8
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LeaseId({:#018x})", self.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The terms of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// The time to live without a renewal.
    pub ttl: Duration,
    /// The time to live after the break of the stream that renewed it last.
    pub disconnect_grace: Duration,
}

impl LeaseTerms {
    /// The shortest TTL.
    pub const TTL_MIN: Duration = Duration::from_secs(1);
    /// The longest TTL.
    pub const TTL_MAX: Duration = Duration::from_secs(5 * 60);
    /// The number of heartbeat intervals in a TTL.
    pub const HEARTBEATS_A_TTL: u32 = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_has_the_parts_that_it_was_made_of() {
        let id = LeaseId::new(63, LeaseId::GENERATIONS - 1, 0xff_ffff);
        assert_eq!(id.bits(), u64::MAX);
        let id = LeaseId::new(5, 77, 1234);
        assert_eq!((id.server(), id.generation(), id.slot()), (5, 77, 1234));
    }
}
