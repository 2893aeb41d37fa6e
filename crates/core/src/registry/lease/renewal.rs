//! The two words of a slot's last renewal: when it was, and how.
//!
//! Pure.

use crate::model::{LeaseId, Tick};

/// Names a stream over which leases are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId(pub(super) u64);

/// A time of renewal together with a part of the lease's generation, in one word: whoever exchanges
/// it knows that the slot did not change hands between his look at the holder and the exchange.
/// From the high bits: generation modulo 2^21, whether the lease is held (it ran out and was kept;
/// the time is then when the hold began), whether it is sealed, a bit that each renewal flips, so
/// that none goes unnoticed, milliseconds (40 bits, 34 years).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u64);

impl Stamp {
    const TIME_BITS: u32 = 40;
    const TIME: u64 = (1 << Self::TIME_BITS) - 1;
    const FLIP: u64 = 1 << Self::TIME_BITS;
    pub(super) const SEALED: u64 = 1 << (Self::TIME_BITS + 1);
    const HELD: u64 = 1 << (Self::TIME_BITS + 2);

    pub(super) fn new(lease: LeaseId, renewed_at: Tick) -> Self {
        Self((lease.generation() << (Self::TIME_BITS + 3)) | renewed_at.0.min(Self::TIME))
    }

    pub(super) fn renewed_at(self) -> Tick {
        Tick(self.0 & Self::TIME)
    }

    /// The stamp of the next renewal: never earlier, always another.
    pub(super) fn renewed(self, now: Tick) -> Self {
        let time = self.renewed_at().max(now).0.min(Self::TIME);
        Self((self.0 & !(Self::TIME | Self::HELD) | time) ^ Self::FLIP)
    }

    pub(super) fn is_open_to(self, lease: LeaseId) -> bool {
        self.0 & !(Self::TIME | Self::FLIP | Self::HELD) == Self::new(lease, Tick(0)).0
    }

    pub(super) fn is_held(self) -> bool {
        self.0 & Self::HELD != 0
    }

    /// The stamp of a lease that is kept from `now` on although it ran out.
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

/// The way that the last renewal took.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RenewalSource(pub(super) u64);

impl RenewalSource {
    /// A call of its own.
    pub(super) const CALL: Self = Self(0);
    const BROKEN: u64 = 1 << 63;

    /// The given stream, which is open as far as is known.
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
