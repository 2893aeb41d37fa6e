//! The part of the leases that every thread reaches: who holds which slot, and when it was renewed.
//! A renewal is an array access, a comparison and one atomic exchange: no hash, no lock, no hop to
//! the engine. Only the owner of the registry grants and ends leases.

use std::{
    mem,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    failpoint,
    model::{LeaseId, Tick},
};

const SEGMENT_CELLS: usize = 4096;

/// Slots of leases. Grows by whole segments that never move, so that readers need no lock.
#[derive(Debug)]
pub struct LeaseTable {
    segments: Box<[OnceLock<Box<[Cell]>>]>,
    /// Leases whose stream broke and that the owner has not looked at since. Each is in it once for
    /// a break, and a break takes a renewal before it.
    broken: Mutex<Vec<LeaseId>>,
    /// Held leases that were renewed and that the owner has not looked at since. Each is in it once
    /// for a hold.
    returned: Mutex<Vec<LeaseId>>,
    /// How many streams there have been.
    streams: AtomicU64,
}

/// Names a stream over which leases are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId(u64);

/// One slot.
#[derive(Debug, Default)]
struct Cell {
    /// The lease that holds the slot; 0 for none.
    holder: AtomicU64,
    /// When it was renewed, as a [`Stamp`].
    stamp: AtomicU64,
    /// How it was renewed, as a [`Route`].
    route: AtomicU64,
}

/// The way that the last renewal took.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Route(u64);

impl Route {
    /// A call of its own.
    const CALL: Self = Self(0);
    const BROKEN: u64 = 1 << 63;

    /// The given stream, which is open as far as is known.
    fn over(stream: StreamId) -> Self {
        Self(stream.0)
    }

    /// A stream that broke at the given time.
    fn broken(at: Tick) -> Self {
        Self(at.0 | Self::BROKEN)
    }

    fn broken_at(self) -> Option<Tick> {
        (self.0 & Self::BROKEN != 0).then_some(Tick(self.0 & !Self::BROKEN))
    }
}

/// A time of renewal together with a part of the lease's generation, in one word: whoever exchanges
/// it knows that the slot did not change hands between his look at the holder and the exchange.
/// From the high bits: generation modulo 2^21, whether the lease is held (it ran out and was kept;
/// the time is then when the hold began), whether it is sealed, a bit that each renewal flips, so
/// that none goes unnoticed, milliseconds (40 bits, 34 years).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64);

impl Stamp {
    const TIME_BITS: u32 = 40;
    const TIME: u64 = (1 << Self::TIME_BITS) - 1;
    const FLIP: u64 = 1 << Self::TIME_BITS;
    const SEALED: u64 = 1 << (Self::TIME_BITS + 1);
    const HELD: u64 = 1 << (Self::TIME_BITS + 2);

    fn new(lease: LeaseId, renewed_at: Tick) -> Self {
        Self((lease.generation() << (Self::TIME_BITS + 3)) | renewed_at.0.min(Self::TIME))
    }

    fn renewed_at(self) -> Tick {
        Tick(self.0 & Self::TIME)
    }

    /// The stamp of the next renewal: never earlier, always another.
    fn renewed(self, now: Tick) -> Self {
        let time = self.renewed_at().max(now).0.min(Self::TIME);
        Self((self.0 & !(Self::TIME | Self::HELD) | time) ^ Self::FLIP)
    }

    fn is_open_to(self, lease: LeaseId) -> bool {
        self.0 & !(Self::TIME | Self::FLIP | Self::HELD) == Self::new(lease, Tick(0)).0
    }

    fn is_held(self) -> bool {
        self.0 & Self::HELD != 0
    }

    /// The stamp of a lease that is kept from `now` on although it ran out.
    fn held(self, now: Tick) -> Self {
        Self(self.0 & !(Self::TIME | Self::SEALED) | Self::HELD | now.0.min(Self::TIME))
    }

    fn sealed(self) -> Self {
        Self(self.0 | Self::SEALED)
    }

    fn unsealed(self) -> Self {
        Self(self.0 & !Self::SEALED)
    }
}

/// What the owner saw of a lease: it can be sealed for as long as nobody renewed it since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    stamp: Stamp,
    pub(super) broken_at: Option<Tick>,
}

impl Sight {
    /// When the lease was renewed; of a held one, when the hold began.
    pub(super) fn renewed_at(self) -> Tick {
        self.stamp.renewed_at()
    }

    /// Whether the lease ran out, was kept, and has not been renewed since.
    pub(super) fn is_held(self) -> bool {
        self.stamp.is_held()
    }
}

impl LeaseTable {
    pub(super) fn new() -> Self {
        let segments = LeaseId::SLOTS / SEGMENT_CELLS;
        Self {
            segments: std::iter::repeat_with(OnceLock::new).take(segments).collect(),
            broken: Mutex::default(),
            returned: Mutex::default(),
            streams: AtomicU64::new(0),
        }
    }

    /// A name for a stream that opens.
    pub fn open_stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Renews a lease as of `now`, by a call of its own. `false`: it does not live, and its holder
    /// has to register again.
    ///
    /// Linear: a renewal that returned `true` is seen by the next judgement of the lease.
    pub fn renew(&self, lease: LeaseId, now: Tick) -> bool {
        self.renew_by(lease, now, Route::CALL)
    }

    /// As [`Self::renew`], over a stream: when that breaks before the next renewal, the lease has
    /// its grace left.
    pub fn renew_over(&self, stream: StreamId, lease: LeaseId, now: Tick) -> bool {
        self.renew_by(lease, now, Route::over(stream))
    }

    fn renew_by(&self, lease: LeaseId, now: Tick, route: Route) -> bool {
        let Some(cell) = self.cell(lease.slot()) else { return false };
        let fences = !failpoint::planted("no-fence");
        let lease = if fences { lease } else { self.holder(lease.slot()).unwrap_or(lease) };
        if cell.holder.load(Ordering::Acquire) != lease.bits() || lease.bits() == 0 {
            return false;
        }
        // The route before the stamp: whoever judges by the new stamp sees the new route.
        cell.route.store(route.0, Ordering::Release);
        let mut seen = Stamp(cell.stamp.load(Ordering::Acquire));
        loop {
            if !seen.is_open_to(lease) {
                return false;
            }
            // A lost exchange means another renewal, a seal, or a new holder: look again.
            match cell.stamp.compare_exchange_weak(
                seen.0,
                seen.renewed(now).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    if seen.is_held() {
                        self.returned.lock().push(lease);
                    }
                    return true;
                }
                Err(stamp) => seen = Stamp(stamp),
            }
        }
    }

    /// Whether a lease lives.
    pub fn lives(&self, lease: LeaseId) -> bool {
        self.holder(lease.slot()) == Some(lease)
    }

    /// Notes that a stream broke, where the lease was last renewed over it.
    pub fn break_stream(&self, stream: StreamId, lease: LeaseId, now: Tick) {
        let Some(cell) = self.cell(lease.slot()) else { return };
        if cell.holder.load(Ordering::Acquire) != lease.bits() {
            return;
        }
        let (over, broken) = (Route::over(stream).0, Route::broken(now).0);
        let noted = cell.route.compare_exchange(over, broken, Ordering::AcqRel, Ordering::Acquire);
        if noted.is_ok() {
            self.broken.lock().push(lease);
        }
    }

    /// The leases whose streams broke since the last call.
    pub(super) fn take_broken(&self) -> Vec<LeaseId> {
        mem::take(&mut *self.broken.lock())
    }

    /// At most `count` of the held leases that were renewed since the last call.
    pub(super) fn take_returned(&self, count: usize) -> Vec<LeaseId> {
        let mut returned = self.returned.lock();
        let kept = returned.len().saturating_sub(count);
        returned.split_off(kept)
    }

    /// Makes the next [`Self::take_returned`] return the lease again.
    pub(super) fn put_back_returned(&self, lease: LeaseId) {
        self.returned.lock().push(lease);
    }

    /// The lease that holds a slot.
    pub(super) fn holder(&self, slot: u32) -> Option<LeaseId> {
        let bits = self.cell(slot)?.holder.load(Ordering::Acquire);
        (bits != 0).then(|| LeaseId::from_bits(bits))
    }

    /// How the slot's lease stands.
    pub(super) fn look(&self, slot: u32) -> Sight {
        let (stamp, route) = self.cell(slot).map_or((0, 0), |cell| {
            // The stamp first: a renewal after this look changes it, and a seal then fails.
            let stamp = cell.stamp.load(Ordering::Acquire);
            (stamp, cell.route.load(Ordering::Acquire))
        });
        Sight { stamp: Stamp(stamp), broken_at: Route(route).broken_at() }
    }

    /// Gives the slot to a lease. Whoever held it before can't renew from here on.
    pub(super) fn grant(&self, lease: LeaseId, now: Tick) {
        let Some(segment) = self.segments.get(lease.slot() as usize / SEGMENT_CELLS) else {
            return;
        };
        let cells = segment
            .get_or_init(|| std::iter::repeat_with(Cell::default).take(SEGMENT_CELLS).collect());
        let Some(cell) = cells.get(lease.slot() as usize % SEGMENT_CELLS) else { return };
        cell.route.store(Route::CALL.0, Ordering::Release);
        // The stamp before the holder: a renewal under way by the old one loses its exchange.
        cell.stamp.store(Stamp::new(lease, now).0, Ordering::Release);
        cell.holder.store(lease.bits(), Ordering::Release);
    }

    /// Closes the lease to renewals; `false` if it has been renewed since it was looked at.
    pub(super) fn seal(&self, lease: LeaseId, sight: Sight) -> bool {
        let Sight { stamp, .. } = sight;
        stamp.is_open_to(lease)
            && self.cell(lease.slot()).is_some_and(|cell| {
                let sealed = stamp.sealed().0;
                cell.stamp
                    .compare_exchange(stamp.0, sealed, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
            })
    }

    /// Opens a sealed lease again.
    pub(super) fn unseal(&self, slot: u32) {
        self.alter_sealed(slot, Stamp::unsealed);
    }

    /// Opens a sealed lease again, which is held from `now` on.
    pub(super) fn hold(&self, slot: u32, now: Tick) {
        self.alter_sealed(slot, |stamp| stamp.held(now));
    }

    fn alter_sealed(&self, slot: u32, alter: impl FnOnce(Stamp) -> Stamp) {
        if let Some(cell) = self.cell(slot) {
            // Nobody else writes to a sealed stamp.
            let stamp = Stamp(cell.stamp.load(Ordering::Acquire));
            cell.stamp.store(alter(stamp).0, Ordering::Release);
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
        assert_eq!(table.look(7).renewed_at(), Tick(20));
        table.grant(second, Tick(30));
        assert!(!table.renew(first, Tick(40)));
        assert_eq!(table.look(7).renewed_at(), Tick(30));
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
        assert_eq!(table.look(0).renewed_at(), Tick(30));
    }

    #[test]
    fn a_sealed_lease_is_closed_until_it_is_unsealed() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, Tick(10));
        let before = table.look(0);
        assert!(table.renew(lease, Tick(10)));
        assert!(!table.seal(lease, before), "renewed since, in the same millisecond");
        assert!(table.seal(lease, table.look(0)));
        assert!(!table.renew(lease, Tick(12)));
        table.unseal(0);
        assert!(table.renew(lease, Tick(13)));
    }

    #[test]
    fn a_held_lease_returns_once_with_its_first_renewal() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, Tick(10));
        assert!(table.seal(lease, table.look(0)));
        table.hold(0, Tick(50));
        let sight = table.look(0);
        assert_eq!((sight.is_held(), sight.renewed_at()), (true, Tick(50)));
        assert!(table.renew(lease, Tick(60)));
        assert!(table.renew(lease, Tick(70)));
        assert!(!table.look(0).is_held());
        assert!(!table.seal(lease, sight), "renewed since");
        assert_eq!(table.take_returned(10), [lease]);
        assert_eq!(table.take_returned(10), []);
        table.put_back_returned(lease);
        assert_eq!(table.take_returned(0), []);
        assert_eq!(table.take_returned(1), [lease]);
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
            let sight = table.look(0);
            let (renewed, sealed) = std::thread::scope(|scope| {
                let renewal = scope.spawn(|| table.renew(lease, Tick(20)));
                let sealed = table.seal(lease, sight);
                (renewal.join().expect("the renewal returns"), sealed)
            });
            assert!(renewed != sealed, "round {round}");
        }
    }

    #[test]
    fn a_break_counts_where_the_last_renewal_came_over_the_stream() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        let (first, second) = (table.open_stream(), table.open_stream());
        table.grant(lease, Tick(10));
        table.break_stream(first, lease, Tick(11));
        assert_eq!(table.look(0).broken_at, None, "never renewed over it");
        assert!(table.renew_over(first, lease, Tick(12)));
        assert!(table.renew_over(second, lease, Tick(13)));
        table.break_stream(first, lease, Tick(14));
        assert_eq!(table.look(0).broken_at, None, "renewed over another since");
        table.break_stream(second, lease, Tick(15));
        table.break_stream(second, lease, Tick(16));
        assert_eq!(table.look(0).broken_at, Some(Tick(15)));
        assert_eq!(table.take_broken(), [lease], "once for a break");
        assert!(table.renew(lease, Tick(17)));
        assert_eq!(table.look(0).broken_at, None, "a renewal by any way ends it");
        table.break_stream(second, LeaseId::new(0, 2, 0), Tick(18));
        assert_eq!(table.take_broken(), []);
    }
}
