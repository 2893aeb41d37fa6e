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

use super::renewal::{RenewalSource, Stamp, StreamId};
use crate::{
    failpoint,
    model::{LeaseId, Tick},
};

const SEGMENT_SLOTS: usize = 4096;

/// Slots of leases. Grows by whole segments that never move, so that readers need no lock.
#[derive(Debug)]
pub struct LeaseTable {
    segments: Box<[OnceLock<Box<[AtomicSlot]>>]>,
    /// Leases whose stream broke and that the owner has not looked at since. Each is in it once for
    /// a break, and a break takes a renewal before it.
    broken: Mutex<Vec<LeaseId>>,
    /// Held leases that were renewed and that the owner has not looked at since. Each is in it once
    /// for a hold.
    renewed: Mutex<Vec<LeaseId>>,
    /// How many streams there have been.
    streams: AtomicU64,
}

/// One slot.
#[derive(Debug, Default)]
struct AtomicSlot {
    /// The lease that holds the slot; 0 for none.
    lease: AtomicU64,
    /// When it was renewed, as a [`Stamp`].
    stamp: AtomicU64,
    /// How it was renewed, as a [`RenewalSource`].
    source: AtomicU64,
}

/// What the owner saw of a lease: it can be sealed for as long as nobody renewed it since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    stamp: Stamp,
    pub(super) broken_at: Option<Tick>,
}

impl Observed {
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
        let segments = LeaseId::SLOTS / SEGMENT_SLOTS;
        Self {
            segments: std::iter::repeat_with(OnceLock::new).take(segments).collect(),
            broken: Mutex::default(),
            renewed: Mutex::default(),
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
    /// Linear: a renewal that returned `true` is seen by the next check of the lease.
    pub fn renew(&self, lease: LeaseId, now: Tick) -> bool {
        self.renew_by(lease, now, RenewalSource::CALL)
    }

    /// As [`Self::renew`], over a stream: when that breaks before the next renewal, the lease has
    /// its grace left.
    pub fn renew_over(&self, stream: StreamId, lease: LeaseId, now: Tick) -> bool {
        self.renew_by(lease, now, RenewalSource::over(stream))
    }

    fn renew_by(&self, lease: LeaseId, now: Tick, source: RenewalSource) -> bool {
        let Some(slot_state) = self.slot_state(lease.slot()) else { return false };
        let fences = !failpoint::planted("no-fence");
        let lease = if fences { lease } else { self.lease_in(lease.slot()).unwrap_or(lease) };
        if slot_state.lease.load(Ordering::Acquire) != lease.bits() || lease.bits() == 0 {
            return false;
        }
        // The source before the stamp: whoever judges by the new stamp sees the new source.
        slot_state.source.store(source.0, Ordering::Release);
        let mut seen = Stamp(slot_state.stamp.load(Ordering::Acquire));
        loop {
            if !seen.is_open_to(lease) {
                return false;
            }
            // A lost exchange means another renewal, a seal, or a new holder: look again.
            match slot_state.stamp.compare_exchange_weak(
                seen.0,
                seen.renewed(now).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    if seen.is_held() {
                        self.renewed.lock().push(lease);
                    }
                    return true;
                }
                Err(stamp) => seen = Stamp(stamp),
            }
        }
    }

    /// Whether a lease lives.
    pub fn is_active(&self, lease: LeaseId) -> bool {
        self.lease_in(lease.slot()) == Some(lease)
    }

    /// Notes that a stream broke, where the lease was last renewed over it.
    pub fn break_stream(&self, stream: StreamId, lease: LeaseId, now: Tick) {
        let Some(slot_state) = self.slot_state(lease.slot()) else { return };
        if slot_state.lease.load(Ordering::Acquire) != lease.bits() {
            return;
        }
        let (over, broken) = (RenewalSource::over(stream).0, RenewalSource::broken(now).0);
        let noted =
            slot_state.source.compare_exchange(over, broken, Ordering::AcqRel, Ordering::Acquire);
        if noted.is_ok() {
            self.broken.lock().push(lease);
        }
    }

    /// The leases whose streams broke since the last call.
    pub(super) fn take_broken(&self) -> Vec<LeaseId> {
        mem::take(&mut *self.broken.lock())
    }

    /// At most `count` of the held leases that were renewed since the last call.
    pub(super) fn take_renewed(&self, count: usize) -> Vec<LeaseId> {
        let mut renewed = self.renewed.lock();
        let kept = renewed.len().saturating_sub(count);
        renewed.split_off(kept)
    }

    /// Makes the next [`Self::take_renewed`] return the lease again.
    pub(super) fn put_back_renewed(&self, lease: LeaseId) {
        self.renewed.lock().push(lease);
    }

    /// The lease that holds a slot.
    pub(super) fn lease_in(&self, slot: u32) -> Option<LeaseId> {
        let bits = self.slot_state(slot)?.lease.load(Ordering::Acquire);
        (bits != 0).then(|| LeaseId::from_bits(bits))
    }

    /// How the slot's lease stands.
    pub(super) fn observe(&self, slot: u32) -> Observed {
        let (stamp, source) = self.slot_state(slot).map_or((0, 0), |slot_state| {
            // The stamp first: a renewal after this look changes it, and a seal then fails.
            let stamp = slot_state.stamp.load(Ordering::Acquire);
            (stamp, slot_state.source.load(Ordering::Acquire))
        });
        Observed { stamp: Stamp(stamp), broken_at: RenewalSource(source).broken_at() }
    }

    /// Gives the slot to a lease. Whoever held it before can't renew from here on.
    pub(super) fn grant(&self, lease: LeaseId, now: Tick) {
        let Some(segment) = self.segments.get(lease.slot() as usize / SEGMENT_SLOTS) else {
            return;
        };
        let slots = segment.get_or_init(|| {
            std::iter::repeat_with(AtomicSlot::default).take(SEGMENT_SLOTS).collect()
        });
        let Some(slot_state) = slots.get(lease.slot() as usize % SEGMENT_SLOTS) else { return };
        slot_state.source.store(RenewalSource::CALL.0, Ordering::Release);
        // The stamp before the holder: a renewal under way by the old one loses its exchange.
        slot_state.stamp.store(Stamp::new(lease, now).0, Ordering::Release);
        slot_state.lease.store(lease.bits(), Ordering::Release);
    }

    /// Closes the lease to renewals; `false` if it has been renewed since it was looked at.
    pub(super) fn seal(&self, lease: LeaseId, observed: Observed) -> bool {
        let Observed { stamp, .. } = observed;
        stamp.is_open_to(lease)
            && self.slot_state(lease.slot()).is_some_and(|slot_state| {
                let sealed = stamp.sealed().0;
                slot_state
                    .stamp
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
        if let Some(slot_state) = self.slot_state(slot) {
            // Nobody else writes to a sealed stamp.
            let stamp = Stamp(slot_state.stamp.load(Ordering::Acquire));
            slot_state.stamp.store(alter(stamp).0, Ordering::Release);
        }
    }

    /// Takes the slot from its lease.
    pub(super) fn end(&self, slot: u32) {
        if let Some(slot_state) = self.slot_state(slot) {
            slot_state.stamp.fetch_or(Stamp::SEALED, Ordering::AcqRel);
            slot_state.lease.store(0, Ordering::Release);
        }
    }

    fn slot_state(&self, slot: u32) -> Option<&AtomicSlot> {
        self.segments.get(slot as usize / SEGMENT_SLOTS)?.get()?.get(slot as usize % SEGMENT_SLOTS)
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
        assert_eq!(table.observe(7).renewed_at(), Tick(20));
        table.grant(second, Tick(30));
        assert!(!table.renew(first, Tick(40)));
        assert_eq!(table.observe(7).renewed_at(), Tick(30));
        assert!(table.renew(second, Tick(50)));
        table.end(7);
        assert!(!table.renew(second, Tick(60)));
        assert_eq!(table.lease_in(7), None);
    }

    #[test]
    fn a_renewal_never_moves_a_lease_back() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, Tick(10));
        assert!(table.renew(lease, Tick(30)));
        assert!(table.renew(lease, Tick(20)));
        assert_eq!(table.observe(0).renewed_at(), Tick(30));
    }

    #[test]
    fn a_sealed_lease_is_closed_until_it_is_unsealed() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, Tick(10));
        let before = table.observe(0);
        assert!(table.renew(lease, Tick(10)));
        assert!(!table.seal(lease, before), "renewed since, in the same millisecond");
        assert!(table.seal(lease, table.observe(0)));
        assert!(!table.renew(lease, Tick(12)));
        table.unseal(0);
        assert!(table.renew(lease, Tick(13)));
    }

    #[test]
    fn a_held_lease_returns_once_with_its_first_renewal() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, Tick(10));
        assert!(table.seal(lease, table.observe(0)));
        table.hold(0, Tick(50));
        let observed = table.observe(0);
        assert_eq!((observed.is_held(), observed.renewed_at()), (true, Tick(50)));
        assert!(table.renew(lease, Tick(60)));
        assert!(table.renew(lease, Tick(70)));
        assert!(!table.observe(0).is_held());
        assert!(!table.seal(lease, observed), "renewed since");
        assert_eq!(table.take_renewed(10), [lease]);
        assert_eq!(table.take_renewed(10), []);
        table.put_back_renewed(lease);
        assert_eq!(table.take_renewed(0), []);
        assert_eq!(table.take_renewed(1), [lease]);
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
            let observed = table.observe(0);
            let (renewed, sealed) = std::thread::scope(|scope| {
                let renewal = scope.spawn(|| table.renew(lease, Tick(20)));
                let sealed = table.seal(lease, observed);
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
        assert_eq!(table.observe(0).broken_at, None, "never renewed over it");
        assert!(table.renew_over(first, lease, Tick(12)));
        assert!(table.renew_over(second, lease, Tick(13)));
        table.break_stream(first, lease, Tick(14));
        assert_eq!(table.observe(0).broken_at, None, "renewed over another since");
        table.break_stream(second, lease, Tick(15));
        table.break_stream(second, lease, Tick(16));
        assert_eq!(table.observe(0).broken_at, Some(Tick(15)));
        assert_eq!(table.take_broken(), [lease], "once for a break");
        assert!(table.renew(lease, Tick(17)));
        assert_eq!(table.observe(0).broken_at, None, "a renewal by any way ends it");
        table.break_stream(second, LeaseId::new(0, 2, 0), Tick(18));
        assert_eq!(table.take_broken(), []);
    }
}
