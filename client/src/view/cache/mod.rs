//! Folds what a watch sends into the instances of one service. Pure: no clock, no socket. It must
//! never give a state that the registry did not have, but for instances held over on purpose.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    endpoint::{Endpoint, ServiceStats, Snapshot, Tick},
    proto::{self, ChangeKind, Cursor, Instance, WatchResponse, watch_response::Event},
    runtime::clock::Instant,
};

/// The most instances that one service can have: as many as a registry takes in all.
pub(crate) const INSTANCES_MAX: usize = 2_000_000;

/// The state of one service.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: BTreeMap<String, Entry>,
    /// Where `entries` stands (but for those held over); none before the first snapshot.
    cursor: Option<Cursor>,
    /// The parts of a snapshot whose last part has not come yet.
    pending: Option<Pending>,
    /// Whether a violation left `entries` in a state that the registry may never have had: until the
    /// next snapshot nothing is shown, and nothing gone on from.
    torn: bool,
    /// How long instances that a new history lacks stay.
    hold: Duration,
    /// Since when no registry is heard in which they could register: that time does not count.
    away_since: Option<Instant>,
    stats: Arc<ServiceStats>,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    /// Set for an instance that the registry does not know (yet): when it leaves.
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    cursor: Cursor,
    instances: BTreeMap<String, Instance>,
}

/// What a message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    /// There is another view.
    Changed,
    /// The view is the same.
    Same,
}

/// What makes the stream untrustworthy: the caller has to watch afresh, without resuming.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a message without cursor, event or instance")]
    Incomplete,
    #[error("changes came before any snapshot")]
    NoState,
    #[error("something else came before a snapshot was complete")]
    TornSnapshot,
    #[error("the history changed without a snapshot")]
    History,
    #[error("revision {found} does not come after {last}")]
    Order { last: u64, found: u64 },
    #[error("a change of an instance that is not known at revision {revision}")]
    Unknown { revision: u64 },
    #[error("an addition of an instance that is there already at revision {revision}")]
    Duplicate { revision: u64 },
    #[error("a kind of change that is not known at revision {revision}")]
    Kind { revision: u64 },
    #[error("more than {INSTANCES_MAX} instances")]
    TooMany,
}

impl Cache {
    /// A cache that knows nothing. After a change of history, what is missing stays for `hold`.
    pub(crate) fn new(hold: Duration, stats: Arc<ServiceStats>) -> Self {
        let entries = BTreeMap::new();
        Self { entries, cursor: None, pending: None, torn: false, hold, away_since: None, stats }
    }

    /// Makes a cache that knows nothing know what an earlier one did, at `cursor`. What that held over
    /// has the whole time again.
    pub(crate) fn restore(
        &mut self,
        cursor: Cursor,
        registered: Vec<Instance>,
        held: Vec<Instance>,
        now: Instant,
    ) {
        let hold = self.hold;
        let registered = registered.into_iter().map(|instance| (instance, None));
        let held = held.into_iter().map(|instance| (instance, Some(now + hold)));
        for (instance, held_until) in registered.chain(held) {
            let id = instance.id.clone();
            let endpoint = Arc::new(Endpoint::new(instance, &self.stats));
            self.entries.insert(id, Entry { endpoint, held_until });
        }
        self.cursor = Some(cursor);
        self.away_since = Some(now);
    }

    /// Takes in one message. After a violation the state must not be shown until a snapshot came.
    pub(crate) fn fold(&mut self, message: WatchResponse, now: Instant) -> Result<Fold, Violation> {
        let moved = self.heard(now);
        let folded = self.fold_in(message, now);
        self.torn |= folded.is_err();
        // Until when something is held is a part of the view.
        folded.map(|fold| if moved && !self.torn { Fold::Changed } else { fold })
    }

    fn fold_in(&mut self, message: WatchResponse, now: Instant) -> Result<Fold, Violation> {
        let cursor = message.cursor.ok_or(Violation::Incomplete)?;
        let tick = self.stats.advance(now);
        match message.event.ok_or(Violation::Incomplete)? {
            Event::Snapshot(part) => self.fold_part(part, &cursor, now),
            Event::Changes(changes) => self.fold_changes(changes, cursor, tick),
            Event::Idle(_) => {
                let last = self.position(&cursor)?;
                advance(last, cursor.revision)?;
                self.cursor = Some(cursor);
                Ok(Fold::Same)
            }
        }
    }

    /// The stream ended: what was half received is void, and what is held stays until it is heard of
    /// again.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        self.pending = None;
        self.away_since.get_or_insert(now);
    }

    /// Puts off the end of each hold by as long as nothing was heard. Whether there are any.
    fn heard(&mut self, now: Instant) -> bool {
        let Some(since) = self.away_since.take() else { return false };
        let mut moved = false;
        for until in self.entries.values_mut().filter_map(|entry| entry.held_until.as_mut()) {
            *until += now.saturating_duration_since(since);
            moved = true;
        }
        moved
    }

    /// Where a new stream can go on; none where it must begin with a snapshot.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref().filter(|_| !self.torn)
    }

    /// Whether the state is what the last message told, with nothing outstanding.
    pub(crate) fn is_whole(&self) -> bool {
        self.pending.is_none() && self.cursor().is_some()
    }

    /// The state, to be shown.
    pub(crate) fn view(&self) -> Snapshot {
        let endpoints = self.entries.values().map(|entry| Arc::clone(&entry.endpoint)).collect();
        let stats = Arc::clone(&self.stats);
        let held = |entry: &Entry| Some((Arc::clone(&entry.endpoint), entry.held_until?));
        let held = self.entries.values().filter_map(held).collect();
        let cursor = self.cursor.clone().unwrap_or_default();
        Snapshot::sorted(endpoints, cursor, stats).with_held(held)
    }

    /// When the next held instance leaves; none while no registry is heard.
    pub(crate) fn next_release(&self) -> Option<Instant> {
        if self.away_since.is_some() {
            return None;
        }
        self.entries.values().filter_map(|entry| entry.held_until).min()
    }

    /// Lets held instances go whose time is over.
    pub(crate) fn release(&mut self, now: Instant) -> Fold {
        if self.away_since.is_some() {
            return Fold::Same;
        }
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.held_until.is_none_or(|until| now < until));
        if self.torn || self.entries.len() == before { Fold::Same } else { Fold::Changed }
    }

    fn fold_part(
        &mut self,
        part: proto::Snapshot,
        cursor: &Cursor,
        now: Instant,
    ) -> Result<Fold, Violation> {
        let pending = self
            .pending
            .get_or_insert_with(|| Pending { cursor: cursor.clone(), instances: BTreeMap::new() });
        if pending.cursor != *cursor {
            return Err(Violation::TornSnapshot);
        }
        let parts = part.instances.into_iter().map(|instance| (instance.id.clone(), instance));
        pending.instances.extend(parts);
        if pending.instances.len() > INSTANCES_MAX {
            return Err(Violation::TooMany);
        }
        if part.last
            && let Some(pending) = self.pending.take()
        {
            self.swap_in(pending, now);
            return Ok(Fold::Changed);
        }
        Ok(Fold::Same)
    }

    fn swap_in(&mut self, pending: Pending, now: Instant) {
        let mut before = std::mem::take(&mut self.entries);
        for (id, instance) in pending.instances {
            let known = before.get(&id).map(|known| Arc::clone(&known.endpoint));
            let endpoint = match before.remove(&id) {
                // An equal instance keeps its allocation: fewer bytes to move.
                Some(known) if *known.endpoint.instance() == instance => known.endpoint,
                Some(known) => Arc::new(Endpoint::replace(&known.endpoint, instance)),
                None => Arc::new(Endpoint::new(instance, &self.stats)),
            };
            // At first all are new, so that none is.
            if self.cursor.is_some() {
                endpoint.begin_slow_start(known.as_deref(), self.stats.latest());
            }
            self.entries.insert(id, Entry { endpoint, held_until: None });
        }
        let same_history = self
            .cursor
            .as_ref()
            .is_some_and(|cursor| cursor.history_id == pending.cursor.history_id);
        // A registry that lost its memory must not empty the view: what it does not know yet has
        // as long again to register. Within a history, what is missing is gone, except for what an
        // earlier change of history holds.
        for (id, entry) in before {
            let held_until = if same_history { entry.held_until } else { Some(now + self.hold) };
            if held_until.is_some_and(|until| now < until) {
                self.entries.insert(id, Entry { held_until, ..entry });
            }
        }
        self.cursor = Some(pending.cursor);
        self.torn = false;
    }

    fn fold_changes(
        &mut self,
        changes: proto::Changes,
        cursor: Cursor,
        now: Tick,
    ) -> Result<Fold, Violation> {
        let mut last = self.position(&cursor)?;
        for change in changes.changes {
            if change.revision <= last {
                return Err(Violation::Order { last, found: change.revision });
            }
            last = change.revision;
            self.apply(change, now)?;
        }
        advance(last, cursor.revision)?;
        self.cursor = Some(cursor);
        Ok(Fold::Changed)
    }

    fn apply(&mut self, change: proto::Change, now: Tick) -> Result<(), Violation> {
        let revision = change.revision;
        let kind = change.kind();
        let instance = change.instance.ok_or(Violation::Incomplete)?;
        let known = self.entries.get(&instance.id);
        // The registry does not know held instances: for it, they can only be added.
        let registered = known.is_some_and(|entry| entry.held_until.is_none());
        match kind {
            ChangeKind::Added if registered => return Err(Violation::Duplicate { revision }),
            ChangeKind::Updated | ChangeKind::Removed if !registered => {
                return Err(Violation::Unknown { revision });
            }
            ChangeKind::Unspecified => return Err(Violation::Kind { revision }),
            ChangeKind::Removed => {
                self.entries.remove(&instance.id);
                return Ok(());
            }
            ChangeKind::Added | ChangeKind::Updated => {}
        }
        if known.is_none() && self.entries.len() >= INSTANCES_MAX {
            return Err(Violation::TooMany);
        }
        let id = instance.id.clone();
        let endpoint = match known {
            Some(entry) => Endpoint::replace(&entry.endpoint, instance),
            None => Endpoint::new(instance, &self.stats),
        };
        endpoint.begin_slow_start(known.map(|entry| &*entry.endpoint), now);
        self.entries.insert(id, Entry { endpoint: Arc::new(endpoint), held_until: None });
        Ok(())
    }

    /// The revision that the state stands at, where a message with `cursor` can be folded into it.
    fn position(&self, cursor: &Cursor) -> Result<u64, Violation> {
        if self.pending.is_some() {
            return Err(Violation::TornSnapshot);
        }
        let ours = self.cursor().ok_or(Violation::NoState)?;
        if ours.history_id != cursor.history_id {
            return Err(Violation::History);
        }
        Ok(ours.revision)
    }
}

fn advance(last: u64, found: u64) -> Result<(), Violation> {
    if found < last { Err(Violation::Order { last, found }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
