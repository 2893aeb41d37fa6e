//! All changes of one history of the registry, as the recorder saw them: the reference that all
//! watches and views are compared with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use waypost_client::proto::{Change, ChangeKind, ChangeReason, Instance, Status};

use crate::{access::Subject, journal::Identity, time::Millis};

/// A change, and what was before.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: ChangeKind,
    pub(crate) reason: ChangeReason,
    pub(crate) instance: Arc<Instance>,
    pub(crate) before: Option<Arc<Instance>>,
    /// Protection held the lease before the change.
    pub(crate) was_held: bool,
    /// Protection holds the lease after the change.
    pub(crate) is_held: bool,
    /// The time at which the recorder saw it, in time that the registry ran.
    pub(crate) seen_at_run: Millis,
}

/// A change as a subject shows it.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen<'a> {
    pub(crate) revision: u64,
    pub(crate) kind: ChangeKind,
    pub(crate) reason: ChangeReason,
    /// None where the instance only left the subject: its content then is not fixed.
    pub(crate) instance: Option<&'a Instance>,
    pub(crate) identity: Identity,
}

/// The key of an instance in the state of a namespace: service and id.
pub(crate) type Place = (String, String);
pub(crate) type State = BTreeMap<Place, Arc<Instance>>;

#[derive(Debug)]
pub(crate) struct History {
    pub(crate) id: String,
    /// The change of revision `n` is at `n - 1`.
    entries: Vec<Entry>,
    /// Changes that came before their predecessors in other namespaces.
    early: BTreeMap<u64, Change>,
    pub(crate) members: BTreeMap<Identity, Arc<Instance>>,
    /// The members whose leases protection holds. `SUSPECT` shows it of those that are `UP` alone.
    pub(crate) held: BTreeSet<Identity>,
}

impl History {
    pub(crate) fn new(id: String) -> Self {
        let (entries, early) = (Vec::new(), BTreeMap::new());
        Self { id, entries, early, members: BTreeMap::new(), held: BTreeSet::new() }
    }

    /// The last revision up to which everything is known.
    pub(crate) fn revision(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The first revision that is missing, where later ones are known.
    pub(crate) fn gap(&self) -> Option<u64> {
        (!self.early.is_empty()).then(|| self.revision() + 1)
    }

    pub(crate) fn entry(&self, revision: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(revision.checked_sub(1)?).ok()?)
    }

    /// Adds a change that the recorder saw. Returns the revisions that it completes.
    pub(crate) fn record(
        &mut self,
        change: Change,
        run: Millis,
    ) -> Result<std::ops::RangeInclusive<u64>, String> {
        let first = self.revision() + 1;
        if change.revision < first || self.early.contains_key(&change.revision) {
            return Err(format!("the recorder got revision {} twice", change.revision));
        }
        self.early.insert(change.revision, change);
        while let Some(change) = self.early.remove(&(self.revision() + 1)) {
            self.append(change, run)?;
        }
        Ok(first..=self.revision())
    }

    fn append(&mut self, change: Change, run: Millis) -> Result<(), String> {
        let (kind, reason, revision) = (change.kind(), change.reason(), change.revision);
        let Some(instance) = change.instance.map(Arc::new) else {
            return Err(format!("revision {revision} has no instance"));
        };
        let identity = Identity::of(&instance);
        if instance.modified_revision != revision {
            let modified = instance.modified_revision;
            return Err(format!("revision {revision} of {identity} says modified at {modified}"));
        }
        let before = match kind {
            ChangeKind::Removed => self.members.remove(&identity),
            _ => self.members.insert(identity.clone(), Arc::clone(&instance)),
        };
        if before.is_some() == (kind == ChangeKind::Added) {
            let known = if before.is_some() { "is there" } else { "is not there" };
            return Err(format!("revision {revision}: {kind:?} of {identity}, which {known}"));
        }
        let created = before.as_ref().map_or(revision, |before| before.created_revision);
        if instance.created_revision != created {
            let told = instance.created_revision;
            return Err(format!(
                "{identity} was created at {created}, revision {revision} says {told}"
            ));
        }
        let was_held = self.held.remove(&identity);
        let is_held = kind == ChangeKind::Updated
            && is_held_after(before.as_deref(), was_held, &instance, reason);
        if is_held {
            self.held.insert(identity);
        }
        let seen_at_run = run;
        self.entries.push(Entry { kind, reason, instance, before, was_held, is_held, seen_at_run });
        Ok(())
    }

    /// The changes after one revision and up to another, as they look through a subject.
    pub(crate) fn through<'a>(
        &'a self,
        subject: &'a Subject,
        after: u64,
        up_to: u64,
    ) -> impl Iterator<Item = Seen<'a>> + 'a {
        let range = usize::try_from(after).unwrap_or(usize::MAX)
            ..usize::try_from(up_to).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.get(range).unwrap_or_default().iter().filter_map(|entry| entry.seen(subject))
    }

    /// The instances of a subject at a revision.
    pub(crate) fn state(&self, subject: &Subject, revision: u64) -> State {
        let mut state = State::new();
        let count = usize::try_from(revision).unwrap_or(usize::MAX).min(self.entries.len());
        for entry in &self.entries[..count] {
            let instance = &entry.instance;
            if !subject.concerns(instance) {
                continue;
            }
            let place = (instance.service.clone(), instance.id.clone());
            if entry.kind == ChangeKind::Removed || !subject.matches(instance) {
                state.remove(&place);
            } else {
                state.insert(place, Arc::clone(instance));
            }
        }
        state
    }
}

/// True where protection holds the lease of an instance after an update. An update without a
/// difference, of an instance that is not `UP`, marks the begin or the end of that.
fn is_held_after(
    before: Option<&Instance>,
    was_held: bool,
    after: &Instance,
    reason: ChangeReason,
) -> bool {
    let unchanged = before.is_some_and(|before| {
        Instance { modified_revision: after.modified_revision, ..before.clone() } == *after
    });
    match after.status() {
        Status::Suspect => true,
        Status::Up => false,
        _ if reason == ChangeReason::Replaced => false,
        _ => was_held != unchanged,
    }
}

impl Entry {
    fn seen(&self, subject: &Subject) -> Option<Seen<'_>> {
        if !subject.concerns(&self.instance) {
            return None;
        }
        let matched = self.before.as_ref().is_some_and(|before| subject.matches(before));
        let matches = subject.matches(&self.instance);
        let none = ChangeReason::Unspecified;
        let (kind, reason, instance) = match (self.kind, matched, matches) {
            (ChangeKind::Updated, true, true)
            | (ChangeKind::Added, _, true)
            | (ChangeKind::Removed, true, _) => (self.kind, self.reason, Some(&*self.instance)),
            (ChangeKind::Updated, false, true) => (ChangeKind::Added, none, Some(&*self.instance)),
            (ChangeKind::Updated, true, false) => (ChangeKind::Removed, none, None),
            _ => return None,
        };
        let identity = Identity::of(&self.instance);
        Some(Seen { revision: self.instance.modified_revision, kind, reason, instance, identity })
    }
}
