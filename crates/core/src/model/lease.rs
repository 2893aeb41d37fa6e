//! A lease: the right to be in the registry for a while. The id says where the lease lies.

use std::{fmt, time::Duration};

/// Names a lease. From the high bits: the number of the server that granted it (6 bits), the
/// generation of its slot (34), the slot (24). Never 0.
///
/// Slot and generation make a renewal an array access and a comparison. The generation begins at
/// random in each process and grows with each grant from the slot, so that an id from before can't
/// be mistaken for a later one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(u64);

impl LeaseId {
    const SLOT_BITS: u32 = 24;
    const GENERATION_BITS: u32 = 34;
    /// How many slots an id can tell apart.
    pub const SLOTS: usize = 1 << Self::SLOT_BITS;
    /// Generations count modulo this.
    pub const GENERATIONS: u64 = 1 << Self::GENERATION_BITS;

    /// The id of the given generation of a slot. What exceeds the bits of a part is cut off.
    pub fn new(server: u8, generation: u64, slot: u32) -> Self {
        let server = u64::from(server) << (Self::SLOT_BITS + Self::GENERATION_BITS);
        let generation = (generation % Self::GENERATIONS) << Self::SLOT_BITS;
        Self(server | generation | (u64::from(slot) & (Self::SLOTS as u64 - 1)))
    }

    /// An id as a peer gave it; it may name nothing.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The id as a number.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The slot that the lease lies in.
    pub fn slot(self) -> u32 {
        (self.0 & (Self::SLOTS as u64 - 1)) as u32
    }

    /// The generation of the slot.
    pub fn generation(self) -> u64 {
        (self.0 >> Self::SLOT_BITS) % Self::GENERATIONS
    }

    /// The number of the server that granted it.
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

/// How long a lease lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// How long without a renewal.
    pub ttl: Duration,
    /// How long after the break of the stream that renewed it last.
    pub disconnect_grace: Duration,
}

impl LeaseTerms {
    /// The shortest time to live.
    pub const TTL_MIN: Duration = Duration::from_secs(1);
    /// The longest time to live.
    pub const TTL_MAX: Duration = Duration::from_secs(5 * 60);
    /// How many heartbeats make a TTL.
    pub const HEARTBEATS_A_TTL: u32 = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_back_its_parts() {
        let id = LeaseId::new(63, LeaseId::GENERATIONS - 1, 0xff_ffff);
        assert_eq!(id.bits(), u64::MAX);
        let id = LeaseId::new(5, 77, 1234);
        assert_eq!((id.server(), id.generation(), id.slot()), (5, 77, 1234));
    }
}
