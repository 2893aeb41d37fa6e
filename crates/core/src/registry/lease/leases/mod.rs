//! The registry's part of the leases: their instances, terms and deadlines, and the free slots. The
//! renewals are in the [`LeaseTable`].
//!
//! Pure but for the table, which other threads renew.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    due::Due,
    generations::{Generations, LeaseSeed},
    restored::RestoredLease,
    service_number::ServiceNumber,
    stalls::Stalls,
    table::{LeaseTable, Observed},
    wheel::ExpiryWheel,
};
use crate::{
    failpoint,
    model::{Instance, LeaseId, LeaseTerms, Presence, RemovalReason, Tick},
};

/// All leases, on the side of the registry.
#[derive(Debug)]
pub(in crate::registry) struct Leases {
    table: Arc<LeaseTable>,
    slots: Vec<LeaseSlot>,
    /// Free slots, the longest free first, so that a slot takes long to be reused.
    free: VecDeque<u32>,
    wheel: ExpiryWheel,
    stalls: Stalls,
    /// The time for which an expired lease is held, in milliseconds.
    hold_ms: u32,
    server: u8,
    generations: Generations,
}

/// A slot: the instance of its lease, and the terms. A take-over keeps the slot and grants its next
/// generation.
#[derive(Debug)]
struct LeaseSlot {
    /// The instance; `None`: the slot is free.
    instance: Option<Arc<Instance>>,
    ttl_ms: u32,
    /// The time to live after the stream of the lease breaks.
    grace_ms: u32,
    /// The generation of the instance's first lease. Generations between it and the present one are
    /// fenced, those before belonged to other instances.
    first_generation: u64,
    /// The generation that was granted last.
    generation: u64,
}

impl LeaseSlot {
    /// A slot that never had a lease.
    const FREE: Self =
        Self { instance: None, ttl_ms: 0, grace_ms: 0, first_generation: 0, generation: 0 };
}

/// The state of a lease.
#[derive(Debug)]
pub(in crate::registry) enum LeaseState<'a> {
    /// The lease of this instance.
    Active(&'a Arc<Instance>),
    /// An earlier lease of an instance that has a newer one.
    Fenced,
    /// A lease that ended or never existed.
    Unknown,
}

impl Leases {
    pub(in crate::registry) fn new(server: u8, seed: LeaseSeed, hold_max: Duration) -> Self {
        Self {
            table: Arc::new(LeaseTable::new()),
            slots: Vec::new(),
            free: VecDeque::new(),
            wheel: ExpiryWheel::new(),
            stalls: Stalls::default(),
            hold_ms: millis(hold_max),
            server,
            generations: Generations::new(seed),
        }
    }

    pub(in crate::registry) fn table(&self) -> Arc<LeaseTable> {
        Arc::clone(&self.table)
    }

    pub(in crate::registry) fn active(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Returns the state of a lease.
    pub(in crate::registry) fn state(&self, lease: LeaseId) -> LeaseState<'_> {
        let Some(lease_slot) = self.slots.get(lease.slot() as usize) else {
            return LeaseState::Unknown;
        };
        let Some(instance) = &lease_slot.instance else { return LeaseState::Unknown };
        if self.table.lease_in(lease.slot()) == Some(lease) {
            return LeaseState::Active(instance);
        }
        let age = |generation: u64| {
            generation.wrapping_sub(lease_slot.first_generation) % LeaseId::GENERATIONS
        };
        let fenced =
            lease.server() == self.server && age(lease.generation()) < age(lease_slot.generation);
        if fenced { LeaseState::Fenced } else { LeaseState::Unknown }
    }

    /// Returns the lease in a slot.
    pub(in crate::registry) fn lease_in(&self, slot: u32) -> Option<LeaseId> {
        self.table.lease_in(slot)
    }

    /// Returns a copy of the generations that follow, for [`Self::upcoming`].
    pub(in crate::registry) fn generations(&self) -> Generations {
        self.generations.clone()
    }

    /// Returns the lease of the `nth` grant from now, counted from 0. Takes its generation from a
    /// copy of [`Self::generations`], from which those of the grants before it were taken.
    pub(in crate::registry) fn upcoming(
        &self,
        nth: usize,
        generations: &mut Generations,
    ) -> LeaseId {
        let slot = match self.free.get(nth) {
            Some(slot) => *slot,
            None => (self.slots.len() + nth - self.free.len()) as u32,
        };
        self.lease(slot, generations.next(self.generation(slot)))
    }

    /// Returns the generation that was granted last in a slot; 0 without one.
    fn generation(&self, slot: u32) -> u64 {
        self.slots.get(slot as usize).map_or(0, |lease_slot| lease_slot.generation)
    }

    /// Returns the lease that supersedes the given one.
    pub(in crate::registry) fn successor(&self, lease: LeaseId) -> LeaseId {
        self.lease(lease.slot(), lease.generation().wrapping_add(1))
    }

    fn lease(&self, slot: u32, generation: u64) -> LeaseId {
        let lease = LeaseId::new(self.server, generation, slot);
        // 0 is not a lease.
        if lease.bits() == 0 { LeaseId::new(self.server, 1, slot) } else { lease }
    }

    /// Grants an upcoming lease. Leases must be granted in the order of [`Self::upcoming`].
    pub(in crate::registry) fn grant(
        &mut self,
        lease: LeaseId,
        service: ServiceNumber,
        instance: Arc<Instance>,
        terms: LeaseTerms,
        now: Tick,
    ) {
        self.generations.next(self.generation(lease.slot()));
        let lease_slot = LeaseSlot {
            instance: Some(instance),
            ttl_ms: millis(terms.ttl),
            grace_ms: millis(terms.disconnect_grace),
            first_generation: lease.generation(),
            generation: lease.generation(),
        };
        let slot = lease.slot() as usize;
        if slot == self.slots.len() {
            self.slots.push(lease_slot);
        } else {
            let freed = self.free.pop_front();
            debug_assert_eq!(freed, Some(lease.slot()), "leases are granted in order");
            self.slots[slot] = lease_slot;
        }
        self.table.grant(lease, service, now);
        self.wheel.insert(lease.slot(), now.after(terms.ttl));
    }

    /// Restores a lease, renewed as of `now`. Leases must come in the order of their slots, before
    /// any grant.
    pub(in crate::registry) fn restore(
        &mut self,
        restored: RestoredLease,
        service: ServiceNumber,
        now: Tick,
    ) {
        let RestoredLease { instance, lease, first_generation, terms } = restored;
        let slot = lease.slot();
        while self.slots.len() < slot as usize {
            let free = self.slots.len() as u32;
            self.slots.push(LeaseSlot::FREE);
            self.free.push_back(free);
        }
        let suspect = instance.presence == Presence::Suspect;
        self.slots.push(LeaseSlot {
            instance: Some(instance),
            ttl_ms: millis(terms.ttl),
            grace_ms: millis(terms.disconnect_grace),
            first_generation,
            generation: lease.generation(),
        });
        self.table.grant(lease, service, now);
        if suspect {
            self.hold(slot, now);
        } else {
            self.wheel.insert(slot, now.after(terms.ttl));
        }
    }

    /// Fences the lease in the slot and grants its successor.
    pub(in crate::registry) fn supersede(
        &mut self,
        lease: LeaseId,
        instance: Arc<Instance>,
        terms: LeaseTerms,
        now: Tick,
    ) {
        let lease_slot = &mut self.slots[lease.slot() as usize];
        lease_slot.instance = Some(instance);
        lease_slot.ttl_ms = millis(terms.ttl);
        lease_slot.grace_ms = millis(terms.disconnect_grace);
        lease_slot.generation = lease.generation();
        self.table.supersede(lease, now);
        self.wheel.remove(lease.slot());
        self.wheel.insert(lease.slot(), now.after(terms.ttl));
    }

    /// Replaces the instance in a slot by its changed version.
    pub(in crate::registry) fn replace(&mut self, slot: u32, instance: Arc<Instance>) {
        self.slots[slot as usize].instance = Some(instance);
    }

    /// Holds an expired lease. It can be renewed again, and expires when the hold ends.
    pub(in crate::registry) fn hold(&mut self, slot: u32, now: Tick) {
        self.table.hold(slot, now);
        self.wheel.remove(slot);
        self.wheel.insert(slot, now.after(Duration::from_millis(self.hold_ms.into())));
    }

    /// Moves a slot in the wheel to the present deadline of its lease.
    pub(in crate::registry) fn reschedule(&mut self, slot: u32) {
        let (deadline, _) = self.deadline(slot, self.table.observe(slot));
        self.wheel.remove(slot);
        self.wheel.insert(slot, deadline);
    }

    /// Returns whether the lease in a slot is held and was not renewed since.
    pub(in crate::registry) fn is_held(&self, slot: u32) -> bool {
        self.table.observe(slot).is_held()
    }

    /// Returns the start of the window in which expired leases are counted together with this one.
    /// It is as long as the TTL, without stalls.
    pub(in crate::registry) fn window_begin(&self, slot: u32, now: Tick) -> Tick {
        let ttl_ms = u64::from(self.slots[slot as usize].ttl_ms);
        let begin = Tick(now.0.saturating_sub(ttl_ms));
        Tick(begin.0.saturating_sub(self.stalls.ms_since(begin)))
    }

    /// Ends the lease in a slot.
    pub(in crate::registry) fn end(&mut self, slot: u32) {
        self.table.end(slot);
        self.wheel.remove(slot);
        self.slots[slot as usize].instance = None;
        self.free.push_back(slot);
    }

    /// See [`crate::registry::Registry::take_due`].
    pub(in crate::registry) fn take_due(
        &mut self,
        now: Tick,
        visits_max: usize,
    ) -> (Vec<Due>, bool) {
        for lease in self.table.take_broken() {
            // Due at the end of the grace, or at once if that has passed.
            if self.table.lease_in(lease.slot()) == Some(lease) {
                self.reschedule(lease.slot());
            }
        }
        let renewed = self.table.take_renewed(visits_max);
        let visits_max = visits_max - renewed.len();
        let mut due_leases: Vec<_> =
            renewed.into_iter().map(|lease| Due::Renewed { lease }).collect();
        for _ in 0..visits_max {
            let Some(slot) = self.wheel.pop(now) else { return (due_leases, false) };
            let Some(lease) = self.table.lease_in(slot) else { continue };
            let observed = self.table.observe(slot);
            let (deadline, reason) = self.deadline(slot, observed);
            // A suspect that renewed is first confirmed, and may expire afterwards.
            let may_expire = observed.is_held() || !self.is_suspect(slot);
            if deadline <= now && may_expire && self.table.seal(lease, observed) {
                due_leases.push(Due::Expired { lease, reason });
            } else {
                self.wheel.insert(slot, deadline.max(now));
            }
        }
        (due_leases, true)
    }

    fn is_suspect(&self, slot: u32) -> bool {
        let instance = &self.slots[slot as usize].instance;
        instance.as_ref().is_some_and(|instance| instance.presence == Presence::Suspect)
    }

    /// See [`crate::registry::Registry::record_stall`].
    pub(in crate::registry) fn record_stall(&mut self, from: Tick, until: Tick) {
        self.stalls.record(from, until);
    }

    /// Returns the grace of a lease whose stream the server found broken at `at`.
    fn grace_ms(&self, lease_slot: &LeaseSlot, at: Tick) -> u32 {
        // A client most likely closed a stream that the server finds broken after a stall because
        // of the stall. It is back by its next heartbeat.
        let heartbeat_ms = lease_slot.ttl_ms / LeaseTerms::HEARTBEATS_A_TTL;
        let return_ms = if self.stalls.include(at) { heartbeat_ms } else { 0 };
        lease_slot.grace_ms.max(return_ms)
    }

    /// Returns the deadline of the lease in a slot, and the reason of its expiry.
    fn deadline(&self, slot: u32, observed: Observed) -> (Tick, RemovalReason) {
        let lease_slot = &self.slots[slot as usize];
        // An event may have happened at the end of its millisecond.
        let after = |tick: Tick, millis: u32| {
            Tick(tick.0 + u64::from(millis) + 1 + self.stalls.ms_since(tick))
        };
        if observed.is_held() {
            let disconnected = observed.broken_at.is_some();
            let (by_grace, by_ttl) = (RemovalReason::Disconnected, RemovalReason::Expired);
            let ends = after(observed.renewed_at(), self.hold_ms);
            return (ends, if disconnected { by_grace } else { by_ttl });
        }
        let ttl_part = if failpoint::planted("expire-early") { 2 } else { 1 };
        let by_ttl = after(observed.renewed_at(), lease_slot.ttl_ms / ttl_part);
        match observed.broken_at.map(|at| after(at, self.grace_ms(lease_slot, at))) {
            Some(by_grace) if by_grace < by_ttl => (by_grace, RemovalReason::Disconnected),
            _ => (by_ttl, RemovalReason::Expired),
        }
    }

    /// See [`crate::registry::Registry::reinstate`].
    pub(in crate::registry) fn reinstate(&mut self, due: Due, now: Tick) {
        let lease = due.lease();
        if self.table.lease_in(lease.slot()) != Some(lease) {
            return;
        }
        match due {
            Due::Expired { .. } => {
                self.table.unseal(lease.slot());
                self.wheel.remove(lease.slot());
                self.wheel.insert(lease.slot(), now);
            }
            Due::Renewed { .. } => self.table.put_back_renewed(lease),
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(Tick(0).after(duration).0).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
