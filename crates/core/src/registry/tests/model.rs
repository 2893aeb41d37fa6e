//! A naive model of the registry: the effect of each command, without plans, wheels or chunks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::HOLD_MS;
use crate::{
    model::{
        Change, ChangeKind, Instance, LeaseId, Name, Presence, RemovalReason, Revision, ServiceKey,
        Tick,
    },
    registry::{ExpiryShare, ProtectedNamespace, Refusal, Target},
    testing::Identity,
};

/// All registered instances, without structure.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) entries: BTreeMap<Identity, Entry>,
    /// The revision of the last change of each known service.
    pub(super) services: BTreeMap<ServiceKey, Revision>,
    pub(super) revision: Revision,
    /// The lease events of each namespace that has instances.
    pub(super) events: BTreeMap<Name, Vec<Event>>,
    /// For each namespace that has suspects: the times of the first and the latest, and the share
    /// that started protection.
    pub(super) protections: BTreeMap<Name, (u64, u64, ExpiryShare)>,
    /// The number of all suspects that ever were.
    pub(super) suspects: usize,
}

/// A change in the number of leases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) at: u64,
    /// The difference in active leases.
    pub(super) active: i64,
    /// The number of expired leases.
    pub(super) expired: i64,
}

/// A registered instance and its lease.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) instance: Instance,
    pub(super) lease: LeaseId,
    /// The earlier leases of the identity.
    pub(super) fenced: BTreeSet<LeaseId>,
    pub(super) ttl_ms: u64,
    /// The time of the last renewal; of a held lease, the start of the hold.
    pub(super) renewed_at: u64,
    /// A suspect was renewed.
    pub(super) renewed: bool,
    /// The latest time at which the registry must find it expired.
    pub(super) due_by: u64,
}

impl Entry {
    /// A bucket of the wheel spans 8 ms, and a lease is active through its last millisecond.
    pub(super) const SLACK_MS: u64 = 8 + 1;

    pub(super) fn renew(&mut self, now: u64) {
        if now > self.renewed_at {
            self.renewed_at = now;
        }
        self.renewed = self.is_suspect();
        self.due_by = self.renewed_at + self.ttl_ms + Self::SLACK_MS;
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.instance.presence == Presence::Suspect
    }

    /// The time from the last renewal to the expiry.
    pub(super) fn lifetime_ms(&self) -> u64 {
        if self.is_suspect() && !self.renewed { HOLD_MS } else { self.ttl_ms }
    }
}

impl Model {
    /// Returns the share that expired in a window of `ttl_ms`.
    pub(super) fn expiry_share(
        &self,
        namespace: &Name,
        ttl_ms: u64,
        now: u64,
        planned: i64,
    ) -> ExpiryShare {
        let begin = now.saturating_sub(ttl_ms);
        let events = self.events.get(namespace).map(Vec::as_slice).unwrap_or_default();
        // The registry counts in samples of 32 ms.
        let before = |event: &&Event| event.at / 32 <= begin / 32;
        let then: i64 = events.iter().filter(before).map(|event| event.active).sum();
        let expired: i64 = events.iter().filter(|e| !before(e)).map(|event| event.expired).sum();
        let active: i64 = events.iter().map(|event| event.active).sum();
        let count = |count: i64| u32::try_from(count).unwrap();
        let of = if events.is_empty() { planned } else { then.max(active + expired) };
        let within = Duration::from_millis(now - begin);
        ExpiryShare { expired: count(expired + planned), of: count(of), within }
    }

    /// Counts an absorbed change for protection.
    pub(super) fn record(&mut self, change: &Change, ttl_ms: u64, at: u64) {
        let namespace = change.instance.service.namespace.clone();
        let suspect = change.instance.presence == Presence::Suspect;
        let (active, expired) = match &change.kind {
            ChangeKind::Added => (1, 0),
            ChangeKind::Updated { before, .. } if before.presence != change.instance.presence => {
                if suspect {
                    (-1, 1)
                } else {
                    (1, 0)
                }
            }
            ChangeKind::Updated { .. } => (0, 0),
            ChangeKind::Removed(_) if suspect => (0, 0),
            ChangeKind::Removed(RemovalReason::Expired | RemovalReason::Disconnected) => (-1, 1),
            ChangeKind::Removed(_) => (-1, 0),
        };
        if suspect && expired == 1 {
            let why = self.expiry_share(&namespace, ttl_ms, at, 0);
            let protection = self.protections.entry(namespace.clone()).or_insert((at, at, why));
            protection.1 = at;
        }
        self.events.entry(namespace).or_default().push(Event { at, active, expired });
    }

    /// Drops the events of namespaces without instances, and protections without suspects.
    pub(super) fn forget_events(&mut self, there: &BTreeMap<Identity, Instance>) {
        let within = |namespace: &Name| {
            let namespace = namespace.clone();
            there.values().filter(move |i| i.service.namespace == namespace)
        };
        self.events.retain(|namespace, _| within(namespace).next().is_some());
        self.protections.retain(|n, _| within(n).any(|i| i.presence == Presence::Suspect));
    }

    pub(super) fn protected(&self) -> Vec<ProtectedNamespace> {
        let held = |namespace: &Name| {
            let entries = self.entries.iter();
            entries.filter(|((key, _), s)| key.namespace == *namespace && s.is_suspect()).count()
        };
        let protected = |(namespace, (since, latest, why)): (&Name, &(u64, u64, ExpiryShare))| {
            let (since, until) = (Tick(*since), Tick(latest + HOLD_MS));
            ProtectedNamespace {
                namespace: namespace.clone(),
                held: held(namespace),
                since,
                until,
                why: *why,
            }
        };
        self.protections.iter().map(protected).collect()
    }

    pub(super) fn find(&self, target: &Target) -> Result<Identity, Refusal> {
        match target {
            Target::Identity(service, id) => {
                let identity = (service.clone(), id.clone());
                let missing =
                    Refusal::NoSuchInstance { service: identity.0.clone(), id: id.clone() };
                if self.entries.contains_key(&identity) { Ok(identity) } else { Err(missing) }
            }
            Target::Lease(lease) => {
                if let Some((identity, _)) =
                    self.entries.iter().find(|(_, entry)| entry.lease == *lease)
                {
                    return Ok(identity.clone());
                }
                let fenced = self.entries.values().any(|entry| entry.fenced.contains(lease));
                Err(if fenced { Refusal::Fenced(*lease) } else { Refusal::NoSuchLease(*lease) })
            }
        }
    }
}
