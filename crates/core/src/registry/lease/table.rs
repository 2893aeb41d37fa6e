//! The lease table: for each slot, its lease and the last renewal. All threads share it.
//!
//! A renewal is an array access, a comparison and one atomic exchange: no hash, no lock, no message
//! to the engine. Invariant: only the owner of the registry grants and ends leases.

use std::{
    mem,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    renewal::{RenewalSource, Stamp, StreamId},
    service_number::ServiceNumber,
};
use crate::{
    failpoint,
    model::{LeaseId, Tick},
};

const SEGMENT_SLOTS: usize = 4096;

/// The slots of all leases. It grows by segments that never move, so that readers need no lock.
#[derive(Debug)]
pub struct LeaseTable {
    segments: Box<[OnceLock<Box<[AtomicSlot]>>]>,
    /// Leases whose stream broke, for the owner to take. One entry for each break, and each break
    /// needs a renewal before it.
    broken: Mutex<Vec<LeaseId>>,
    /// Held leases that were renewed, for the owner to take. One entry for each hold.
    renewed: Mutex<Vec<LeaseId>>,
    /// The number of streams that were opened.
    streams: AtomicU64,
}

/// A slot.
#[derive(Debug, Default)]
struct AtomicSlot {
    /// The lease in the slot; 0 for none.
    lease: AtomicU64,
    /// The time of the last renewal, as a [`Stamp`].
    stamp: AtomicU64,
    /// The call or stream of the last renewal, as a [`RenewalSource`].
    source: AtomicU64,
    /// The service of the lease, as a [`ServiceNumber`].
    service: AtomicU64,
}

impl AtomicSlot {
    #[inline]
    fn service(&self) -> ServiceNumber {
        ServiceNumber(self.service.load(Ordering::Acquire))
    }
}

/// A lease as the owner read it. It can be sealed unless it was renewed since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    stamp: Stamp,
    pub(super) broken_at: Option<Tick>,
}

impl Observed {
    /// Returns the time of the last renewal; of a held lease, the start of the hold.
    pub(super) fn renewed_at(self) -> Tick {
        self.stamp.renewed_at()
    }

    /// Returns whether the lease is held and was not renewed since.
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

    /// Makes the id of a new stream.
    pub fn open_stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Renews a lease as of `now`, by a unary call. `false`: it is not active, and the instance
    /// must register again.
    ///
    /// Linearizable: after `true`, the owner reads this renewal.
    #[inline]
    pub fn renew(&self, lease: LeaseId, now: Tick) -> bool {
        self.renew_by(lease, now, RenewalSource::CALL, |_| true)
    }

    /// Like [`Self::renew`], if `allowed` returns true for the service of the lease. A lease that
    /// is not allowed is left as if it were not active.
    #[inline]
    pub fn renew_if(
        &self,
        lease: LeaseId,
        now: Tick,
        mut allowed: impl FnMut(ServiceNumber) -> bool,
    ) -> bool {
        self.renew_by(lease, now, RenewalSource::CALL, |slot| allowed(slot.service()))
    }

    /// Like [`Self::renew`], over a stream. If the stream breaks before the next renewal, the lease
    /// expires after its grace.
    #[inline]
    pub fn renew_over(&self, stream: StreamId, lease: LeaseId, now: Tick) -> bool {
        self.renew_by(lease, now, RenewalSource::over(stream), |_| true)
    }

    /// Like [`Self::renew_over`], with the condition of [`Self::renew_if`].
    #[inline]
    pub fn renew_over_if(
        &self,
        stream: StreamId,
        lease: LeaseId,
        now: Tick,
        mut allowed: impl FnMut(ServiceNumber) -> bool,
    ) -> bool {
        self.renew_by(lease, now, RenewalSource::over(stream), |slot| allowed(slot.service()))
    }

    #[inline]
    fn renew_by(
        &self,
        lease: LeaseId,
        now: Tick,
        source: RenewalSource,
        allowed: impl FnOnce(&AtomicSlot) -> bool,
    ) -> bool {
        let Some(slot_state) = self.slot_state(lease.slot()) else { return false };
        let fences = !failpoint::planted("no-fence");
        let lease = if fences { lease } else { self.lease_in(lease.slot()).unwrap_or(lease) };
        if slot_state.lease.load(Ordering::Acquire) != lease.bits() || lease.bits() == 0 {
            return false;
        }
        // If the slot got another lease since, this may be the service of that one. Then the stamp
        // is that lease's, too, and is not open to this one.
        if !allowed(slot_state) {
            return false;
        }
        // The source before the stamp: a reader of the new stamp also reads the new source.
        slot_state.source.store(source.0, Ordering::Release);
        let mut seen = Stamp(slot_state.stamp.load(Ordering::Acquire));
        loop {
            if !seen.is_open_to(lease) {
                return false;
            }
            // A failed exchange means another renewal, a seal, or a new lease: read again.
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

    /// Returns the service of the lease in a slot, or of the last one that was; `None` if there
    /// never was one.
    pub fn service_in(&self, slot: u32) -> Option<ServiceNumber> {
        let slot_state = self.slot_state(slot)?;
        let service = slot_state.service();
        (service != ServiceNumber::default()).then_some(service)
    }

    /// Returns whether a lease is active.
    #[inline]
    pub fn is_active(&self, lease: LeaseId) -> bool {
        self.lease_in(lease.slot()) == Some(lease)
    }

    /// Marks a lease as disconnected at `now`, if it was last renewed over the stream that broke.
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

    /// Takes the leases whose streams broke since the last call.
    pub(super) fn take_broken(&self) -> Vec<LeaseId> {
        mem::take(&mut *self.broken.lock())
    }

    /// Takes at most `count` of the held leases that were renewed.
    pub(super) fn take_renewed(&self, count: usize) -> Vec<LeaseId> {
        let mut renewed = self.renewed.lock();
        let kept = renewed.len().saturating_sub(count);
        renewed.split_off(kept)
    }

    /// Makes the next [`Self::take_renewed`] return the lease again.
    pub(super) fn put_back_renewed(&self, lease: LeaseId) {
        self.renewed.lock().push(lease);
    }

    /// Returns the lease in a slot.
    #[inline]
    pub(super) fn lease_in(&self, slot: u32) -> Option<LeaseId> {
        let bits = self.slot_state(slot)?.lease.load(Ordering::Acquire);
        (bits != 0).then(|| LeaseId::from_bits(bits))
    }

    /// Reads the lease in a slot.
    pub(super) fn observe(&self, slot: u32) -> Observed {
        let (stamp, source) = self.slot_state(slot).map_or((0, 0), |slot_state| {
            // The stamp first: a later renewal changes it, and a seal then fails.
            let stamp = slot_state.stamp.load(Ordering::Acquire);
            (stamp, slot_state.source.load(Ordering::Acquire))
        });
        Observed { stamp: Stamp(stamp), broken_at: RenewalSource(source).broken_at() }
    }

    /// Puts a lease into its slot, which has none.
    pub(super) fn grant(&self, lease: LeaseId, service: ServiceNumber, now: Tick) {
        let Some(segment) = self.segments.get(lease.slot() as usize / SEGMENT_SLOTS) else {
            return;
        };
        let slots = segment.get_or_init(|| {
            std::iter::repeat_with(AtomicSlot::default).take(SEGMENT_SLOTS).collect()
        });
        let Some(slot_state) = slots.get(lease.slot() as usize % SEGMENT_SLOTS) else { return };
        // Before the stamp: a renewal that reads the new service also reads the new stamp.
        slot_state.service.store(service.0, Ordering::Release);
        self.supersede(lease, now);
    }

    /// Puts the next lease of an identity into its slot. The lease before can't be renewed from
    /// here on.
    pub(super) fn supersede(&self, lease: LeaseId, now: Tick) {
        let Some(slot_state) = self.slot_state(lease.slot()) else { return };
        slot_state.source.store(RenewalSource::CALL.0, Ordering::Release);
        // The stamp before the lease: a concurrent renewal of the old lease fails its exchange.
        slot_state.stamp.store(Stamp::new(lease, now).0, Ordering::Release);
        slot_state.lease.store(lease.bits(), Ordering::Release);
    }

    /// Closes the lease to renewals; `false` if it was renewed since it was read.
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

    /// Opens a sealed lease to renewals again.
    pub(super) fn unseal(&self, slot: u32) {
        self.alter_sealed(slot, Stamp::unsealed);
    }

    /// Opens a sealed lease to renewals again, and holds it from `now` on.
    pub(super) fn hold(&self, slot: u32, now: Tick) {
        self.alter_sealed(slot, |stamp| stamp.held(now));
    }

    fn alter_sealed(&self, slot: u32, alter: impl FnOnce(Stamp) -> Stamp) {
        if let Some(slot_state) = self.slot_state(slot) {
            // Renewals do not write to a sealed stamp.
            let stamp = Stamp(slot_state.stamp.load(Ordering::Acquire));
            slot_state.stamp.store(alter(stamp).0, Ordering::Release);
        }
    }

    /// Ends the lease in a slot.
    pub(super) fn end(&self, slot: u32) {
        if let Some(slot_state) = self.slot_state(slot) {
            slot_state.stamp.fetch_or(Stamp::SEALED, Ordering::AcqRel);
            slot_state.lease.store(0, Ordering::Release);
        }
    }

    #[inline]
    fn slot_state(&self, slot: u32) -> Option<&AtomicSlot> {
        self.segments.get(slot as usize / SEGMENT_SLOTS)?.get()?.get(slot as usize % SEGMENT_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceNumber = ServiceNumber(1);

    #[test]
    fn only_the_lease_in_the_slot_renews() {
        let table = LeaseTable::new();
        let first = LeaseId::new(0, 41, 7);
        let second = LeaseId::new(0, 42, 7);
        assert!(!table.renew(first, Tick(5)));
        table.grant(first, SERVICE, Tick(10));
        assert!(table.renew(first, Tick(20)));
        assert_eq!(table.observe(7).renewed_at(), Tick(20));
        table.grant(second, SERVICE, Tick(30));
        assert!(!table.renew(first, Tick(40)));
        assert_eq!(table.observe(7).renewed_at(), Tick(30));
        assert!(table.renew(second, Tick(50)));
        table.end(7);
        assert!(!table.renew(second, Tick(60)));
        assert_eq!(table.lease_in(7), None);
    }

    #[test]
    fn renewal_never_moves_a_lease_back() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, SERVICE, Tick(10));
        assert!(table.renew(lease, Tick(30)));
        assert!(table.renew(lease, Tick(20)));
        assert_eq!(table.observe(0).renewed_at(), Tick(30));
    }

    #[test]
    fn sealed_lease_is_closed_until_it_is_unsealed() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, SERVICE, Tick(10));
        let before = table.observe(0);
        assert!(table.renew(lease, Tick(10)));
        assert!(!table.seal(lease, before), "renewed since, in the same millisecond");
        assert!(table.seal(lease, table.observe(0)));
        assert!(!table.renew(lease, Tick(12)));
        table.unseal(0);
        assert!(table.renew(lease, Tick(13)));
    }

    #[test]
    fn held_lease_is_due_once_after_its_first_renewal() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        table.grant(lease, SERVICE, Tick(10));
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
    fn unknown_ids_renew_nothing() {
        let table = LeaseTable::new();
        table.grant(LeaseId::new(0, 1, 0), SERVICE, Tick(0));
        for bits in [0, 1, u64::MAX, 1 << 24, 1 << 63] {
            let lease = LeaseId::from_bits(bits);
            assert_eq!(table.renew(lease, Tick(1)), bits == 1 << 24, "{bits}");
        }
    }

    #[test]
    fn renewal_and_seal_never_both_succeed() {
        for round in 0..2_000 {
            let table = LeaseTable::new();
            let lease = LeaseId::new(0, round, 0);
            table.grant(lease, SERVICE, Tick(10));
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
    fn break_counts_only_for_leases_last_renewed_over_the_stream() {
        let table = LeaseTable::new();
        let lease = LeaseId::new(0, 1, 0);
        let (first, second) = (table.open_stream(), table.open_stream());
        table.grant(lease, SERVICE, Tick(10));
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
        assert_eq!(table.observe(0).broken_at, None, "any renewal ends it");
        table.break_stream(second, LeaseId::new(0, 2, 0), Tick(18));
        assert_eq!(table.take_broken(), []);
    }

    #[test]
    fn lease_that_is_not_allowed_is_left_as_if_it_were_not_active() {
        let table = LeaseTable::new();
        let (lease, stream) = (LeaseId::new(0, 1, 0), table.open_stream());
        table.grant(lease, SERVICE, Tick(10));
        let refuse = |service| {
            assert_eq!(service, SERVICE);
            false
        };
        assert!(!table.renew_if(lease, Tick(20), refuse));
        assert!(!table.renew_over_if(stream, lease, Tick(20), refuse));
        assert_eq!(table.observe(0).renewed_at(), Tick(10));
        table.break_stream(stream, lease, Tick(30));
        assert_eq!(table.observe(0).broken_at, None, "the stream never renewed it");
        assert!(table.renew_over_if(stream, lease, Tick(40), |_| true));
        assert_eq!(table.observe(0).renewed_at(), Tick(40));
        assert_eq!((table.service_in(0), table.service_in(1)), (Some(SERVICE), None));
    }

    #[test]
    fn condition_sees_the_service_of_the_lease_that_it_renews() {
        const ROUNDS: u64 = 3_000_000;
        let table = LeaseTable::new();
        let lease = |round: u64| LeaseId::new(0, round + 1, 0);
        let service = |round: u64| ServiceNumber(1 + round % 2);
        table.grant(lease(0), service(0), Tick(0));
        let (present, mut renewed) = (AtomicU64::new(0), 0);
        std::thread::scope(|scope| {
            let renewals = scope.spawn(|| {
                loop {
                    let round = present.load(Ordering::Acquire);
                    let mut seen = None;
                    let allow = |service| {
                        seen = Some(service);
                        true
                    };
                    if table.renew_if(lease(round), Tick(1), allow) {
                        assert_eq!(seen, Some(service(round)), "round {round}");
                        renewed += 1;
                    }
                    if round == ROUNDS {
                        return;
                    }
                }
            });
            for round in 1..=ROUNDS {
                table.end(0);
                // Before the grant, so that renewals meet every state of the slot.
                present.store(round, Ordering::Release);
                table.grant(lease(round), service(round), Tick(0));
            }
            renewals.join().expect("each renewal sees its service");
        });
        assert!(renewed > 0);
    }
}
