//! The instances of one service, folded from the messages of a watch. Pure. Invariant: after each
//! message the state is one that the registry had, plus the instances that are kept after it lost
//! its history.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    endpoint::{Endpoint, ServiceStats, Snapshot, Tick},
    proto::{self, ChangeKind, Cursor, Instance, WatchResponse, watch_response::Event},
    runtime::clock::Instant,
};

/// The most instances of a service: as many as a registry takes in all.
pub(crate) const INSTANCES_MAX: usize = 2_000_000;

/// The state of one service.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: BTreeMap<String, CachedInstance>,
    /// The cursor of `entries` (except for missing ones); none before the first snapshot.
    cursor: Option<Cursor>,
    /// A snapshot whose last part has not come yet.
    pending: Option<PendingSnapshot>,
    /// True after a violation: `entries` may be a state that the registry never had. Until the next
    /// snapshot, the cache publishes nothing and can't resume.
    torn: bool,
    /// The time for which instances stay that a new history lacks.
    keep_missing_for: Duration,
    /// Since when the registry is unreachable. Instances can't register then: that time does not
    /// count.
    away_since: Option<Instant>,
    stats: Arc<ServiceStats>,
}

#[derive(Debug)]
struct CachedInstance {
    endpoint: Arc<Endpoint>,
    /// Set for an instance that the registry does not know (yet): the time at which it is dropped.
    missing_until: Option<Instant>,
}

#[derive(Debug)]
struct PendingSnapshot {
    cursor: Cursor,
    instances: BTreeMap<String, Instance>,
}

/// The effect of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheChange {
    /// The view changed.
    Changed,
    /// The view is the same.
    Unchanged,
}

/// A violation of the protocol: the caller has to watch again, without resuming.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WatchViolation {
    #[error("a message has no cursor, event or instance")]
    Incomplete,
    #[error("changes came before any snapshot")]
    NoState,
    #[error("another message came before a snapshot was complete")]
    TornSnapshot,
    #[error("the history changed without a snapshot")]
    History,
    #[error("revision {found} does not come after {last}")]
    Order { last: u64, found: u64 },
    #[error("revision {revision} changes an unknown instance")]
    Unknown { revision: u64 },
    #[error("revision {revision} adds an instance that exists")]
    Duplicate { revision: u64 },
    #[error("revision {revision} has an unknown kind of change")]
    Kind { revision: u64 },
    #[error("more than {INSTANCES_MAX} instances")]
    TooMany,
}

impl Cache {
    /// Creates an empty cache. After a change of history, missing instances stay for
    /// `keep_missing_for`.
    pub(crate) fn new(keep_missing_for: Duration, stats: Arc<ServiceStats>) -> Self {
        let entries = BTreeMap::new();
        Self {
            entries,
            cursor: None,
            pending: None,
            torn: false,
            keep_missing_for,
            away_since: None,
            stats,
        }
    }

    /// Fills an empty cache with a stored view at `cursor`. Its missing instances stay for the
    /// whole time again.
    pub(crate) fn restore(
        &mut self,
        cursor: Cursor,
        registered: Vec<Instance>,
        missing: Vec<Instance>,
        now: Instant,
    ) {
        let keep_missing_for = self.keep_missing_for;
        let registered = registered.into_iter().map(|instance| (instance, None));
        let missing = missing.into_iter().map(|instance| (instance, Some(now + keep_missing_for)));
        for (instance, missing_until) in registered.chain(missing) {
            let id = instance.id.clone();
            let endpoint = Arc::new(Endpoint::new(instance, &self.stats));
            self.entries.insert(id, CachedInstance { endpoint, missing_until });
        }
        self.cursor = Some(cursor);
        self.away_since = Some(now);
    }

    /// Folds one message. After a violation the state must not be published until a snapshot came.
    pub(crate) fn fold(
        &mut self,
        message: WatchResponse,
        now: Instant,
    ) -> Result<CacheChange, WatchViolation> {
        let moved = self.resume_missing(now);
        let folded = self.fold_in(message, now);
        self.torn |= folded.is_err();
        // The view contains when missing instances are dropped.
        folded.map(|fold| if moved && !self.torn { CacheChange::Changed } else { fold })
    }

    fn fold_in(
        &mut self,
        message: WatchResponse,
        now: Instant,
    ) -> Result<CacheChange, WatchViolation> {
        let cursor = message.cursor.ok_or(WatchViolation::Incomplete)?;
        let tick = self.stats.advance(now);
        match message.event.ok_or(WatchViolation::Incomplete)? {
            Event::Snapshot(part) => self.fold_part(part, &cursor, now),
            Event::Changes(changes) => self.fold_changes(changes, cursor, tick),
            Event::Idle(_) => {
                let last = self.expect_history(&cursor)?;
                advance(last, cursor.revision)?;
                self.cursor = Some(cursor);
                Ok(CacheChange::Unchanged)
            }
        }
    }

    /// The stream ended: drops a partial snapshot, and keeps missing instances until the registry
    /// responds again.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        self.pending = None;
        self.away_since.get_or_insert(now);
    }

    /// Postpones the end of missing instances by the time without a registry. Returns whether there
    /// are any.
    fn resume_missing(&mut self, now: Instant) -> bool {
        let Some(since) = self.away_since.take() else { return false };
        let mut moved = false;
        for until in self.entries.values_mut().filter_map(|entry| entry.missing_until.as_mut()) {
            *until += now.saturating_duration_since(since);
            moved = true;
        }
        moved
    }

    /// The cursor to resume from; none if a stream must start with a snapshot.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref().filter(|_| !self.torn)
    }

    /// Returns whether the state is that of the last message, without a partial snapshot.
    pub(crate) fn is_complete(&self) -> bool {
        self.pending.is_none() && self.cursor().is_some()
    }

    /// Returns the view to publish.
    pub(crate) fn view(&self) -> Snapshot {
        let endpoints = self.entries.values().map(|entry| Arc::clone(&entry.endpoint)).collect();
        let stats = Arc::clone(&self.stats);
        let missing =
            |entry: &CachedInstance| Some((Arc::clone(&entry.endpoint), entry.missing_until?));
        let missing = self.entries.values().filter_map(missing).collect();
        let cursor = self.cursor.clone().unwrap_or_default();
        Snapshot::sorted(endpoints, cursor, stats).with_missing(missing)
    }

    /// The time at which the next missing instance is dropped; none while the registry is
    /// unreachable.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        if self.away_since.is_some() {
            return None;
        }
        self.entries.values().filter_map(|entry| entry.missing_until).min()
    }

    /// Drops missing instances whose time is over.
    pub(crate) fn expire_missing(&mut self, now: Instant) -> CacheChange {
        if self.away_since.is_some() {
            return CacheChange::Unchanged;
        }
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.missing_until.is_none_or(|until| now < until));
        if self.torn || self.entries.len() == before {
            CacheChange::Unchanged
        } else {
            CacheChange::Changed
        }
    }

    fn fold_part(
        &mut self,
        part: proto::Snapshot,
        cursor: &Cursor,
        now: Instant,
    ) -> Result<CacheChange, WatchViolation> {
        let pending = self.pending.get_or_insert_with(|| PendingSnapshot {
            cursor: cursor.clone(),
            instances: BTreeMap::new(),
        });
        if pending.cursor != *cursor {
            return Err(WatchViolation::TornSnapshot);
        }
        let parts = part.instances.into_iter().map(|instance| (instance.id.clone(), instance));
        pending.instances.extend(parts);
        if pending.instances.len() > INSTANCES_MAX {
            return Err(WatchViolation::TooMany);
        }
        if part.last
            && let Some(pending) = self.pending.take()
        {
            self.replace_with(pending, now);
            return Ok(CacheChange::Changed);
        }
        Ok(CacheChange::Unchanged)
    }

    fn replace_with(&mut self, pending: PendingSnapshot, now: Instant) {
        let mut before = std::mem::take(&mut self.entries);
        for (id, instance) in pending.instances {
            let known = before.get(&id).map(|known| Arc::clone(&known.endpoint));
            let endpoint = match before.remove(&id) {
                // An equal instance keeps its allocation: fewer bytes to move.
                Some(known) if *known.endpoint.instance() == instance => known.endpoint,
                Some(known) => Arc::new(Endpoint::replace(&known.endpoint, instance)),
                None => Arc::new(Endpoint::new(instance, &self.stats)),
            };
            // In the first snapshot, slow start applies to none.
            if self.cursor.is_some() {
                endpoint.begin_slow_start(known.as_deref(), self.stats.latest());
            }
            self.entries.insert(id, CachedInstance { endpoint, missing_until: None });
        }
        let same_history = self
            .cursor
            .as_ref()
            .is_some_and(|cursor| cursor.history_id == pending.cursor.history_id);
        // A registry that lost its history must not empty the view: instances that it does not know
        // yet have some time to register. Within a history, missing instances are gone, except for
        // those of an earlier history whose time is not over.
        for (id, entry) in before {
            let missing_until =
                if same_history { entry.missing_until } else { Some(now + self.keep_missing_for) };
            if missing_until.is_some_and(|until| now < until) {
                self.entries.insert(id, CachedInstance { missing_until, ..entry });
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
    ) -> Result<CacheChange, WatchViolation> {
        let mut last = self.expect_history(&cursor)?;
        for change in changes.changes {
            if change.revision <= last {
                return Err(WatchViolation::Order { last, found: change.revision });
            }
            last = change.revision;
            self.apply(change, now)?;
        }
        advance(last, cursor.revision)?;
        self.cursor = Some(cursor);
        Ok(CacheChange::Changed)
    }

    fn apply(&mut self, change: proto::Change, now: Tick) -> Result<(), WatchViolation> {
        let revision = change.revision;
        let kind = change.kind();
        let instance = change.instance.ok_or(WatchViolation::Incomplete)?;
        let known = self.entries.get(&instance.id);
        // For the registry, missing instances can only be added.
        let registered = known.is_some_and(|entry| entry.missing_until.is_none());
        match kind {
            ChangeKind::Added if registered => return Err(WatchViolation::Duplicate { revision }),
            ChangeKind::Updated | ChangeKind::Removed if !registered => {
                return Err(WatchViolation::Unknown { revision });
            }
            ChangeKind::Unspecified => return Err(WatchViolation::Kind { revision }),
            ChangeKind::Removed => {
                self.entries.remove(&instance.id);
                return Ok(());
            }
            ChangeKind::Added | ChangeKind::Updated => {}
        }
        if known.is_none() && self.entries.len() >= INSTANCES_MAX {
            return Err(WatchViolation::TooMany);
        }
        let id = instance.id.clone();
        let endpoint = match known {
            Some(entry) => Endpoint::replace(&entry.endpoint, instance),
            None => Endpoint::new(instance, &self.stats),
        };
        endpoint.begin_slow_start(known.map(|entry| &*entry.endpoint), now);
        self.entries
            .insert(id, CachedInstance { endpoint: Arc::new(endpoint), missing_until: None });
        Ok(())
    }

    /// Returns the revision of the state, if a message with `cursor` can be folded into it.
    fn expect_history(&self, cursor: &Cursor) -> Result<u64, WatchViolation> {
        if self.pending.is_some() {
            return Err(WatchViolation::TornSnapshot);
        }
        let ours = self.cursor().ok_or(WatchViolation::NoState)?;
        if ours.history_id != cursor.history_id {
            return Err(WatchViolation::History);
        }
        Ok(ours.revision)
    }
}

fn advance(last: u64, found: u64) -> Result<(), WatchViolation> {
    if found < last { Err(WatchViolation::Order { last, found }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
