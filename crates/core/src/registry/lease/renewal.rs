//! The last renewal of a lease in two words: its time, and the call or stream that it came by.
//!
//! Pure.

use crate::model::{LeaseId, Tick};

/// The id of a stream over which leases are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId(pub(super) u64);

/// The time of a renewal and a part of the lease's generation in one word. An exchange that
/// succeeds proves that the slot had the same lease since it was read.
///
/// From the high bits: the generation modulo 2^21; held (the lease expired and is kept, and the
/// time is the start of the hold); sealed; a bit that each renewal flips, so that none goes
/// unnoticed; milliseconds (40 bits, 34 years).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u64);

impl Stamp {
    const TIME_BITS: u32 = 40;
    const TIME: u64 = (1 << Self::TIME_BITS) - 1;
    const FLIP: u64 = 1 << Self::TIME_BITS;
    pub(super) const SEALED: u64 = 1 << (Self::TIME_BITS + 1);
    const HELD: u64 = 1 << (Self::TIME_BITS + 2);

    #[inline]
    pub(super) fn new(lease: LeaseId, renewed_at: Tick) -> Self {
        Self((lease.generation() << (Self::TIME_BITS + 3)) | renewed_at.0.min(Self::TIME))
    }

    /// Returns whether the stamps of two generations have the same part of them.
    pub(super) fn have_equal_generations(one: u64, other: u64) -> bool {
        (one ^ other) << (Self::TIME_BITS + 3) == 0
    }

    #[inline]
    pub(super) fn renewed_at(self) -> Tick {
        Tick(self.0 & Self::TIME)
    }

    /// Returns the stamp of a renewal: never earlier, always different.
    #[inline]
    pub(super) fn renewed(self, now: Tick) -> Self {
        let time = self.renewed_at().max(now).0.min(Self::TIME);
        Self((self.0 & !(Self::TIME | Self::HELD) | time) ^ Self::FLIP)
    }

    /// Returns whether the stamp is of this lease and not sealed.
    #[inline]
    pub(super) fn is_open_to(self, lease: LeaseId) -> bool {
        self.0 & !(Self::TIME | Self::FLIP | Self::HELD) == Self::new(lease, Tick(0)).0
    }

    #[inline]
    pub(super) fn is_held(self) -> bool {
        self.0 & Self::HELD != 0
    }

    /// Returns the stamp of an expired lease that is held from `now` on.
    pub(super) fn held(self, now: Tick) -> Self {
        Self(self.0 & !(Self::TIME | Self::SEALED) | Self::HELD | now.0.min(Self::TIME))
    }

    pub(super) fn sealed(self) -> Self {
        Self(self.0 | Self::SEALED)
    }

    pub(super) fn unsealed(self) -> Self {
        Self(self.0 & !Self::SEALED)
    }
}

/// The call or stream of the last renewal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RenewalSource(pub(super) u64);

impl RenewalSource {
    /// A unary call.
    pub(super) const CALL: Self = Self(0);
    const BROKEN: u64 = 1 << 63;

    /// An open stream.
    #[inline]
    pub(super) fn over(stream: StreamId) -> Self {
        Self(stream.0)
    }

    /// A stream that broke at the given time.
    pub(super) fn broken(at: Tick) -> Self {
        Self(at.0 | Self::BROKEN)
    }

    pub(super) fn broken_at(self) -> Option<Tick> {
        (self.0 & Self::BROKEN != 0).then_some(Tick(self.0 & !Self::BROKEN))
    }
}
