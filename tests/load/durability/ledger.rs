//! The acknowledged writes of one writer, which must hold. A write without a response is in doubt
//! until the registry comes back and shows its outcome.

use std::collections::{BTreeMap, BTreeSet};

use waypost_client::proto::Instance;
use waypost_testing::registry::Identity;

use crate::durability::{
    view::View,
    write::{Answer, Request, Write, content},
};

/// Latest leases of removed identities; few enough for one heartbeat.
const GONE_MAX: usize = 10_000;

/// An identity in the registry.
#[derive(Debug)]
pub(crate) struct IdentityState {
    pub(crate) instance: Instance,
    /// Unknown if the response to the registration was lost.
    pub(crate) lease: Option<u64>,
    /// The leases that take-overs ended.
    pub(crate) fenced: Vec<u64>,
}

/// The outcome of a write without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Kept,
    NotKept,
    /// The write makes no visible difference.
    NoDifference,
}

/// The acknowledged writes, and those in doubt.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) states: BTreeMap<Identity, IdentityState>,
    /// The leases of removed identities.
    pub(crate) gone: Vec<u64>,
    in_doubt: Option<Write>,
    /// The highest acknowledged revision.
    pub(crate) revision: u64,
    /// Changes that took a revision.
    pub(crate) changes: u64,
}

impl Ledger {
    pub(crate) fn answered(&mut self, write: &Write, answer: Answer) {
        let Answer { instance, lease, cursor } = answer;
        let modified = instance.as_ref().map_or(0, |instance| instance.modified_revision);
        assert!(modified <= cursor.revision, "{write:?} was answered from the future");
        assert!(self.revision <= cursor.revision, "{write:?} was answered from the past");
        let changes = self.changes;
        self.apply(write, instance, lease);
        let moved = self.revision < cursor.revision;
        assert!(moved || self.changes == changes, "{write:?} took no revision");
        self.revision = cursor.revision;
    }

    /// The connection broke before the response.
    pub(crate) fn doubt(&mut self, write: Write) {
        self.in_doubt = Some(write);
    }

    /// Every lease that a heartbeat can ask about.
    pub(crate) fn leases(&self) -> Vec<u64> {
        let state = self.states.values();
        let granted = state.flat_map(|state| state.lease.iter().chain(&state.fenced));
        granted.chain(&self.gone).copied().collect()
    }

    /// Compares with what the registry shows, and with which of the leases it does not know. First
    /// decides what was in doubt; after that there is one right state for each identity and lease.
    pub(crate) fn settle(&mut self, view: &View, unknown: &BTreeSet<u64>) -> Option<Outcome> {
        let outcome = self.in_doubt.take().map(|write| self.decide(&write, view, unknown));
        for (identity, state) in &self.states {
            let found = view.instances.get(identity);
            assert_eq!(found, Some(&state.instance), "{identity:?} is not as it was answered");
        }
        // An identity in doubt is in neither.
        let held = self.states.values().filter_map(|state| state.lease);
        let lost: Vec<_> = held.filter(|lease| unknown.contains(lease)).collect();
        let fenced = self.states.values().flat_map(|state| &state.fenced);
        let ended: BTreeSet<_> = fenced.chain(&self.gone).copied().collect();
        let living: Vec<_> = ended.difference(unknown).collect();
        assert!(lost.is_empty(), "leases were lost: {lost:?}");
        assert!(living.is_empty(), "leases that ended live: {living:?}");
        outcome
    }

    /// A write is visible completely, with its lease, or not at all.
    fn decide(&mut self, write: &Write, view: &View, unknown: &BTreeSet<u64>) -> Outcome {
        if write.refusal.is_some() {
            return Outcome::NoDifference;
        }
        let found = view.instances.get(&write.identity);
        let before = self.states.get(&write.identity);
        let lease = before.and_then(|before| before.lease);
        let before = before.map(|before| &before.instance);
        let kept = match (&write.request, lease) {
            // What a take-over always does, whatever the content.
            (Request::Register(_), Some(lease)) => unknown.contains(&lease),
            _ if before.map(content) == write.outcome(before) => return Outcome::NoDifference,
            _ => found != before,
        };
        if kept {
            self.apply(write, found.cloned(), None);
            Outcome::Kept
        } else {
            Outcome::NotKept
        }
    }

    /// Notes what a write made of its identity, once that is checked.
    fn apply(&mut self, write: &Write, instance: Option<Instance>, lease: Option<u64>) {
        assert_eq!(write.refusal, None, "{write:?} was not refused");
        let before = self.states.remove(&write.identity);
        let instance_before = before.as_ref().map(|before| &before.instance);
        let expected = write.outcome(instance_before);
        assert_eq!(instance.as_ref().map(content), expected, "{write:?} made something else");
        let changed = instance_before.map(content) != expected;
        self.changes += u64::from(changed);
        if let Some(instance) = &instance {
            self.check_additions(instance_before, instance);
        }
        let (mut fenced, lease_before) =
            before.map_or_else(Default::default, |before| (before.fenced, before.lease));
        let lease = match (&write.request, &instance) {
            (Request::Update(_), _) => lease_before,
            (_, Some(_)) => {
                fenced.extend(lease_before);
                lease
            }
            (_, None) => {
                self.gone.extend(fenced.drain(..).chain(lease_before));
                self.gone.drain(..self.gone.len().saturating_sub(GONE_MAX));
                None
            }
        };
        if let Some(instance) = instance {
            let state = IdentityState { instance, lease, fenced };
            self.states.insert(write.identity.clone(), state);
        }
    }

    /// Checks the fields that the registry adds to an instance.
    fn check_additions(&self, before: Option<&Instance>, instance: &Instance) {
        let modified = instance.modified_revision;
        assert!(instance.registered_at.is_some(), "{instance:?}");
        match before {
            Some(before) if content(before) == content(instance) => {
                assert_eq!(before, instance, "nothing changed");
            }
            Some(before) => {
                assert_eq!(before.created_revision, instance.created_revision, "{instance:?}");
                assert_eq!(before.registered_at, instance.registered_at, "{instance:?}");
                assert!(modified > self.revision, "{instance:?} is of the past");
            }
            None => {
                assert_eq!(instance.created_revision, modified, "{instance:?} is new");
                assert!(modified > self.revision, "{instance:?} is of the past");
            }
        }
    }
}
