//! The part of the leases that every thread reaches: who holds which slot, and when it was renewed.
//! A renewal is an array access, a comparison and one atomic exchange: no hash, no lock, no hop to
//! the engine. Only the owner of the registry grants and ends leases.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::model::{LeaseId, Tick};

const SEGMENT_CELLS: usize = 4096;

/// Slots of leases. Grows by whole segments that never move, so that readers need no lock.
#[derive(Debug)]
pub struct LeaseTable {
    segments: Box<[OnceLock<Box<[Cell]>>]>,
}

/// One slot.
#[derive(Debug, Default)]
struct Cell {
    /// The lease that holds the slot; 0 for none.
    holder: AtomicU64,
    /// When it was renewed, as a [`Stamp`].
    stamp: AtomicU64,
}

/// A time of renewal together with a part of the lease's generation, in one word: whoever exchanges
/// it knows that the slot did not change hands between his look at the holder and the exchange.
/// From the high bits: generation modulo 2^23, whether the lease is sealed, milliseconds (40 bits,
/// 34 years).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64);

impl Stamp {
    const TIME_BITS: u32 = 40;
    const SEALED: u64 = 1 << Self::TIME_BITS;
    const TIME: u64 = Self::SEALED - 1;

    fn new(lease: LeaseId, renewed_at: Tick) -> Self {
        Self((lease.generation() << (Self::TIME_BITS + 1)) | renewed_at.0.min(Self::TIME))
    }

    fn renewed_at(self) -> Tick {
        Tick(self.0 & Self::TIME)
    }

    fn is_open_to(self, lease: LeaseId) -> bool {
        self.0 & !Self::TIME == Self::new(lease, Tick(0)).0
    }

    fn sealed(self) -> Self {
        Self(self.0 | Self::SEALED)
    }

    fn unsealed(self) -> Self {
        Self(self.0 & !Self::SEALED)
    }
}

impl LeaseTable {
    pub(super) fn new() -> Self {
        let segments = LeaseId::SLOTS / SEGMENT_CELLS;
        Self { segments: std::iter::repeat_with(OnceLock::new).take(segments).collect() }
    }

    /// Renews a lease as of `now`. `false`: it does not live, and its holder has to register again.
    ///
    /// Linear: a renewal that returned `true` is seen by the next judgement of the lease.
    pub fn renew(&self, lease: LeaseId, now: Tick) -> bool {
        let Some(cell) = self.cell(lease.slot()) else { return false };
        if cell.holder.load(Ordering::Acquire) != lease.bits() || lease.bits() == 0 {
            return false;
        }
        let renewed = Stamp::new(lease, now);
        let mut seen = Stamp(cell.stamp.load(Ordering::Acquire));
        loop {
            if !seen.is_open_to(lease) {
                return false;
            }
            if seen.renewed_at() >= now {
                return true;
            }
            // A lost exchange means another renewal, a seal, or a new holder: look again.
            match cell.stamp.compare_exchange_weak(
                seen.0,
                renewed.0,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(stamp) => seen = Stamp(stamp),
            }
        }
    }

    /// The lease that holds a slot.
    pub(super) fn holder(&self, slot: u32) -> Option<LeaseId> {
        let bits = self.cell(slot)?.holder.load(Ordering::Acquire);
        (bits != 0).then(|| LeaseId::from_bits(bits))
    }

    /// When the slot's lease was renewed last.
    pub(super) fn renewed_at(&self, slot: u32) -> Tick {
        self.cell(slot)
            .map_or(Tick(0), |cell| Stamp(cell.stamp.load(Ordering::Acquire)).renewed_at())
    }

    /// Gives the slot to a lease. Whoever held it before can't renew from here on.
    pub(super) fn grant(&self, lease: LeaseId, now: Tick) {
        let Some(segment) = self.segments.get(lease.slot() as usize / SEGMENT_CELLS) else {
            return;
        };
        let cells = segment
            .get_or_init(|| std::iter::repeat_with(Cell::default).take(SEGMENT_CELLS).collect());
        let Some(cell) = cells.get(lease.slot() as usize % SEGMENT_CELLS) else { return };
        // The stamp first: a renewal under way by the old holder then loses its exchange.
        cell.stamp.store(Stamp::new(lease, now).0, Ordering::Release);
        cell.holder.store(lease.bits(), Ordering::Release);
    }

    /// Closes the lease to renewals if it was last renewed at `renewed_at`; `false` if it has been
    /// renewed since.
    pub(super) fn seal(&self, lease: LeaseId, renewed_at: Tick) -> bool {
        let seen = Stamp::new(lease, renewed_at);
        self.cell(lease.slot()).is_some_and(|cell| {
            cell.stamp
                .compare_exchange(seen.0, seen.sealed().0, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        })
    }

    /// Opens a sealed lease again.
    pub(super) fn unseal(&self, slot: u32) {
        if let Some(cell) = self.cell(slot) {
            // Nobody else writes to a sealed stamp.
            let stamp = Stamp(cell.stamp.load(Ordering::Acquire));
            cell.stamp.store(stamp.unsealed().0, Ordering::Release);
        }
    }

    /// Takes the slot from its lease.
    pub(super) fn end(&self, slot: u32) {
        if let Some(cell) = self.cell(slot) {
            cell.stamp.fetch_or(Stamp::SEALED, Ordering::AcqRel);
            cell.holder.store(0, Ordering::Release);
        }
    }

    fn cell(&self, slot: u32) -> Option<&Cell> {
        self.segments.get(slot as usize / SEGMENT_CELLS)?.get()?.get(slot as usize % SEGMENT_CELLS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_holder_renews() {
        let table = LeaseTable::new();
        let first = LeaseId::new(0, 41, 7);
        let second = LeaseId::new(0, 42, 7);
        assert!(!table.renew(first, Tick(5)));
        table.grant(first, Tick(10));
        assert!(table.renew(first, Tick(20)));
        assert_eq!(table.renewed_at(7), Tick(20));
        table.grant(second, Tick(30));
        assert!(!table.renew(first, Tick(40)));
        assert_eq!(table.renewed_at(7), Tick(30));
        assert!(table.renew(second, Tick(50)));
        table.end(7);
        assert!(!table.renew(second, Tick(60)));
        assert_eq!(table.holder(7), None);
    }

    #[test]
    fn a_renewal_never_moves_a_lease_back() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, Tick(10));
        assert!(table.renew(lease, Tick(30)));
        assert!(table.renew(lease, Tick(20)));
        assert_eq!(table.renewed_at(0), Tick(30));
    }

    #[test]
    fn a_sealed_lease_is_closed_until_it_is_unsealed() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, Tick(10));
        assert!(table.renew(lease, Tick(11)));
        assert!(!table.seal(lease, Tick(10)), "renewed since");
        assert!(table.seal(lease, Tick(11)));
        assert!(!table.renew(lease, Tick(12)));
        table.unseal(0);
        assert!(table.renew(lease, Tick(13)));
    }

    #[test]
    fn ids_that_name_nothing_renew_nothing() {
        let table = LeaseTable::new();
        table.grant(LeaseId::new(0, 1, 0), Tick(0));
        for bits in [0, 1, u64::MAX, 1 << 24, 1 << 63] {
            let lease = LeaseId::from_bits(bits);
            assert_eq!(table.renew(lease, Tick(1)), bits == 1 << 24, "{bits}");
        }
    }

    #[test]
    fn a_renewal_and_a_seal_never_both_win() {
        for round in 0..2_000 {
            let table = LeaseTable::new();
            let lease = LeaseId::new(0, round, 0);
            table.grant(lease, Tick(10));
            let (renewed, sealed) = std::thread::scope(|scope| {
                let renewal = scope.spawn(|| table.renew(lease, Tick(20)));
                let sealed = table.seal(lease, Tick(10));
                (renewal.join().expect("the renewal returns"), sealed)
            });
            assert!(renewed != sealed, "round {round}");
        }
    }
}
