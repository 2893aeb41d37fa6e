//! The processes that hold each identity, with their start and their end: finds removals that are
//! wrong or overdue.

use std::collections::{BTreeMap, BTreeSet};

use waypost_client::proto::ChangeReason;

use super::conditions::{Conditions, Moment};
use crate::{access::ServiceName, journal::Identity, software::replica::LeaseTerms, time::Millis};

/// The longest time in which a client recovers from a fault: a request without response (5 s), the
/// longest wait between attempts (5 s), another attempt.
pub(crate) const RECOVERY_MS: Millis = 12_000;
/// The longest delay of an expiry, by the contract.
pub(crate) const LATE_MAX_MS: Millis = 100;
/// The longest delay of a change to a watcher, over a link without faults.
pub(crate) const TRAVEL_MS: Millis = 120;
/// The longest delay that a standstill of the registry adds to a deadline, beyond its length.
pub(crate) const STANDSTILL_MS: Millis = 120;
/// Until when processes that fought for an identity may keep away from it.
const CONTEST_MS: Millis = 75_000;
/// For how long they remember it.
const CONTEST_MEMORY_MS: Millis = 700_000;
/// The longest time after which a client whose registration was refused retries it, and recovers.
const REFUSED_MS: Millis = 75_000;

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Termination {
    /// Killed: its kernel closed the connections.
    Killed,
    /// PowerLost with its host: connections stay open.
    PowerLost,
    /// Deregistered, with a response.
    Deregistered,
    /// Deregistered, without a response.
    DeregisteredUnconfirmed,
}

#[derive(Debug)]
struct Holder {
    process: usize,
    node: usize,
    is_leaving: bool,
}

/// An identity that is or was held.
#[derive(Debug)]
struct IdentityRecord {
    holders: Vec<Holder>,
    /// The longest terms of its holders.
    terms: LeaseTerms,
    /// The last event that gives other reasons for a removal: another holder, or an operator.
    unsettled: Moment,
    /// The same, without the last end.
    unsettled_alive: Moment,
    /// The last time with more than one holder.
    contested: Option<Moment>,
    /// The last renewal by an update, and so not over a stream.
    updated: Moment,
    /// The last time at which its service lost its right to register, or got it back.
    barred: Option<Moment>,
    /// The end of its last holder.
    ended: Option<(Moment, Termination, usize)>,
}

/// All identities with their holders.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    claims: BTreeMap<Identity, IdentityRecord>,
    /// The services that can't register, since when.
    barred: BTreeMap<ServiceName, Moment>,
}

impl Membership {
    pub(crate) fn born(
        &mut self,
        identity: &Identity,
        process: usize,
        node: usize,
        terms: LeaseTerms,
        now: Moment,
    ) {
        let claim = self.claims.entry(identity.clone()).or_insert_with(|| IdentityRecord {
            holders: Vec::new(),
            terms,
            unsettled: now,
            unsettled_alive: now,
            contested: None,
            updated: now,
            barred: None,
            ended: None,
        });
        claim.terms.ttl_ms = claim.terms.ttl_ms.max(terms.ttl_ms);
        claim.terms.grace_ms = claim.terms.grace_ms.max(terms.grace_ms);
        claim.unsettle(now);
        claim.ended = None;
        claim.holders.push(Holder { process, node, is_leaving: false });
        if claim.holders.len() > 1 {
            claim.contested = Some(now);
        }
    }

    pub(crate) fn ended(
        &mut self,
        identity: &Identity,
        process: usize,
        end: Termination,
        now: Moment,
    ) {
        // Without its right it can't deregister, and its streams break nothing.
        let is_barred = self.is_barred(identity);
        let end = if is_barred { Termination::PowerLost } else { end };
        let Some(claim) = self.claims.get_mut(identity) else { return };
        let node = claim.holders.iter().find(|holder| holder.process == process);
        let Some(node) = node.map(|holder| holder.node) else { return };
        if claim.holders.len() > 1 {
            claim.contested = Some(now);
        }
        claim.holders.retain(|holder| holder.process != process);
        claim.unsettled = now;
        if claim.holders.is_empty() {
            claim.ended = Some((now, end, node));
        } else {
            claim.unsettled_alive = now;
        }
    }

    pub(crate) fn leaving(&mut self, identity: &Identity, process: usize, now: Moment) {
        let Some(claim) = self.claims.get_mut(identity) else { return };
        claim.unsettle(now);
        for holder in claim.holders.iter_mut().filter(|holder| holder.process == process) {
            holder.is_leaving = true;
        }
    }

    /// An operator removed it; its holder registers again.
    pub(crate) fn evicted(&mut self, identity: &Identity, now: Moment) {
        if let Some(claim) = self.claims.get_mut(identity) {
            claim.unsettle(now);
        }
    }

    pub(crate) fn updated(&mut self, identity: &Identity, now: Moment) {
        if let Some(claim) = self.claims.get_mut(identity) {
            claim.updated = now;
        }
    }

    /// Notes which services can't register from now on.
    pub(crate) fn bar(&mut self, services: &BTreeSet<ServiceName>, now: Moment) {
        let is_changed =
            |one: &ServiceName| services.contains(one) != self.barred.contains_key(one);
        for (identity, claim) in &mut self.claims {
            if is_changed(&service_of(identity)) {
                claim.unsettle(now);
                claim.barred = Some(now);
            }
        }
        self.barred.retain(|one, _| services.contains(one));
        for service in services {
            self.barred.entry(service.clone()).or_insert(now);
        }
    }

    fn is_barred(&self, identity: &Identity) -> bool {
        !self.barred.is_empty() && self.barred.contains_key(&service_of(identity))
    }

    /// The members whose services can't register, and whose last renewal was too long ago.
    pub(crate) fn overstaying<'a>(
        &'a self,
        conditions: &'a Conditions,
    ) -> impl Iterator<Item = (&'a Identity, String)> + 'a {
        let claims = self.claims.iter().filter(|_| !self.barred.is_empty());
        claims.filter_map(|(identity, claim)| {
            let since = self.barred.get(&service_of(identity))?.max(&conditions.began);
            let standstills = conditions.now.standstills - since.standstills;
            let limit = claim.terms.ttl_ms + LATE_MAX_MS + TRAVEL_MS;
            let deadline = since.run + limit + STANDSTILL_MS * standstills;
            (conditions.now.run > deadline).then(|| {
                let (at, ttl_ms) = (since.at, claim.terms.ttl_ms);
                let text = format!(
                    "{identity} (TTL {ttl_ms} ms) may not be registered since {at} ms, and is \
                     still there"
                );
                (identity, text)
            })
        })
    }

    /// Judges the loss of an identity: expired, disconnected or deregistered.
    pub(crate) fn judge_loss(
        &self,
        identity: &Identity,
        what: &str,
        conditions: &Conditions,
    ) -> Result<(), String> {
        let Some(claim) = self.claims.get(identity) else { return Ok(()) };
        let [holder] = &claim.holders[..] else { return Ok(()) };
        if holder.is_leaving || self.is_barred(identity) {
            return Ok(());
        }
        let needed = claim.terms.ttl_ms + RECOVERY_MS;
        // Stalls of the registry are no reason.
        let passed = |since: Moment| conditions.now.run > since.run + needed;
        let unhampered = passed(claim.unsettled)
            && passed(conditions.hampered(holder.node))
            && passed(conditions.began)
            && claim.contested.is_none_or(|since| conditions.now.at > since.at + CONTEST_MS);
        if !unhampered {
            return Ok(());
        }
        let (process, node, terms) = (holder.process, holder.node, claim.terms);
        Err(format!(
            "{identity} is lost ({what}), but process {process} on host {node} ({terms:?}) \
             lives and was hampered last at {} ms",
            conditions.hampered(node).at
        ))
    }

    /// Judges a removal.
    pub(crate) fn judge_removal(
        &self,
        identity: &Identity,
        reason: ChangeReason,
        conditions: &Conditions,
    ) -> Result<(), String> {
        match reason {
            ChangeReason::Expired
            | ChangeReason::Disconnected
            | ChangeReason::Deregistered
            | ChangeReason::Evicted => self.judge_loss(identity, reason.as_str_name(), conditions),
            _ => Err(format!("{identity} was removed for no reason: {reason:?}")),
        }
    }

    /// The members that have been dead for too long.
    pub(crate) fn overdue<'a>(
        &'a self,
        conditions: &'a Conditions,
    ) -> impl Iterator<Item = (&'a Identity, String)> + 'a {
        self.claims.iter().filter_map(|(identity, claim)| {
            let (ended, end, node) = claim.ended?;
            let (limit, since) = claim.time_to_leave(ended, end, node, conditions);
            let standstills = conditions.now.standstills - since.standstills;
            let deadline = since.run + limit + STANDSTILL_MS * standstills;
            (conditions.now.run > deadline).then(|| {
                let (at, terms) = (ended.at, claim.terms);
                let text = format!(
                    "{identity} ({terms:?}) has been dead since {at} ms ({end:?} on host {node}), \
                     had to leave within {limit} ms from {} ms on, and is still there",
                    since.at
                );
                (identity, text)
            })
        })
    }

    /// The identities that must be present, each with its process. Contested ones may be absent.
    pub(crate) fn present<'a>(
        &'a self,
        conditions: &'a Conditions,
    ) -> impl Iterator<Item = (&'a Identity, usize)> + 'a {
        let now = conditions.now.at;
        self.claims.iter().filter_map(move |(identity, claim)| {
            let [holder] = &claim.holders[..] else { return None };
            let calm = claim.contested.is_none_or(|since| {
                // A process that was fenced before waits longer whenever it loses the lease.
                let hampered = conditions.hampered(holder.node).max(conditions.shaken);
                let lost = claim.unsettled.max(conditions.began).max(since).max(hampered);
                now > lost.at + CONTEST_MS || now > since.at + CONTEST_MEMORY_MS
            });
            let is_allowed = !self.is_barred(identity)
                && claim.barred.is_none_or(|since| now > since.at + REFUSED_MS);
            (calm && is_allowed && !holder.is_leaving).then_some((identity, holder.process))
        })
    }

    /// True where it was ever held.
    pub(crate) fn is_known(&self, identity: &Identity) -> bool {
        self.claims.contains_key(identity)
    }

    /// True where it is held, or was a moment ago.
    pub(crate) fn is_held(&self, identity: &Identity) -> bool {
        self.claims.get(identity).is_some_and(|claim| !claim.holders.is_empty())
    }
}

fn service_of(identity: &Identity) -> ServiceName {
    (identity.namespace.clone(), identity.service.clone())
}

impl IdentityRecord {
    /// The time that a dead identity may stay, and its start.
    fn time_to_leave(
        &self,
        ended: Moment,
        end: Termination,
        node: usize,
        conditions: &Conditions,
    ) -> (Millis, Moment) {
        let slack = LATE_MAX_MS + 2 * TRAVEL_MS;
        let hampered = conditions.hampered(node);
        let since = ended.max(hampered).max(conditions.began);
        let before = |moment: Moment, by: Millis| moment.run + by < ended.run;
        let settled = RECOVERY_MS + self.terms.ttl_ms;
        let told = before(hampered, settled)
            && before(conditions.began, settled)
            && before(conditions.shaken, settled)
            && before(self.unsettled_alive, settled)
            && before(self.updated, self.terms.ttl_ms)
            && self.contested.is_none();
        match end {
            // What is another's by now is left to the other.
            Termination::Deregistered if told => (slack, since),
            Termination::Killed if told => {
                let LeaseTerms { ttl_ms, grace_ms } = self.terms;
                (conditions.grace_ms(ttl_ms, grace_ms, ended.at) + slack, since)
            }
            _ => {
                // What was under way when the fault ended may renew it once more.
                (self.terms.ttl_ms + slack + 1_000, since)
            }
        }
    }

    fn unsettle(&mut self, now: Moment) {
        (self.unsettled, self.unsettled_alive) = (now, now);
    }
}
