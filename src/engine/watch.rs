//! A watch: a cursor into the log that its reader moves.
//!
//! Invariant: its memory does not depend on the speed of its reader. It has no queue; a reader that
//! falls behind the log starts over with a snapshot.

use std::{
    collections::{BTreeMap, HashSet},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
    vec,
};

use tokio::time::{Instant, Sleep, sleep_until};
use waypost_core::failpoint::planted;

use super::{PublishedState, signals::Waiter};
use crate::{
    auth::{Permit, WatchScope, WatchSlot, WatchTarget},
    model::{Change, Cursor, Filter, Revision, ServiceKey, Visibility},
    registry::{LogEntry, RosterChunk, Service},
};

/// The longest time without an event: below the 10 s that the protocol promises.
const IDLE_INTERVAL: Duration = Duration::from_secs(8);
/// The most changes of an event.
const EVENT_CHANGES_MAX: usize = 256;
/// The most log entries that an event scans.
const SCAN_MAX: usize = 4096;
/// The bytes of instances after which an event is full. Unread events wait in the stream's buffers,
/// a whole event at a time: this bounds the memory of each slow reader.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    subscription: Subscription,
    filter: Filter,
    /// The reader has received every matching change up to this revision.
    cursor: Revision,
    phase: WatchPhase,
    /// The time of the next idle event.
    idle_at: Instant,
    /// A timer for that time or earlier: it is reset when it fires, not with each event.
    idle: Pin<Box<Sleep>>,
    /// Counts the watch for its caller.
    _slot: Option<WatchSlot>,
}

#[derive(Debug)]
enum WatchPhase {
    /// The next event starts a snapshot.
    NeedsSnapshot,
    /// A snapshot is in progress: its remaining chunks, and what follows.
    Snapshot(vec::IntoIter<Arc<RosterChunk>>, AfterSnapshot),
    /// The watch resumed and has sent no event yet.
    Resumed,
    /// The watch follows the log.
    Following,
}

/// What follows a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterSnapshot {
    /// The changes after it.
    Changes,
    /// Another one: the scope has changed meanwhile.
    Snapshot,
}

/// An event of a watch.
#[derive(Debug)]
pub enum WatchEvent {
    /// A part of the state at the cursor.
    Snapshot {
        /// The instances of these chunks that match the filter.
        chunks: Vec<Arc<RosterChunk>>,
        /// Set on the last part.
        last: bool,
    },
    /// The matching changes up to the cursor.
    Changes(Vec<WatchedChange>),
    /// No matching change up to the cursor.
    Idle,
}

/// A change as seen through a watch's filter.
#[derive(Debug)]
pub enum WatchedChange {
    /// The instance matched before and after, or was added or removed.
    Whole(Arc<LogEntry>),
    /// The instance matches the filter from now on.
    Entered(Arc<LogEntry>),
    /// The instance no longer matches the filter.
    Left(Arc<LogEntry>),
}

impl Watch {
    pub(super) fn open(
        shared: Arc<PublishedState>,
        (subjects, slot): (WatchScope, Option<WatchSlot>),
        filter: Filter,
        resume: Option<Cursor>,
    ) -> Self {
        let published = shared.published();
        let resumed = resume.filter(|cursor| {
            cursor.history == shared.history
                && cursor.revision <= published
                && (shared.resumable.include(&subjects, cursor.revision)
                    || planted("cursor-of-old-policy"))
                && cursor.revision >= shared.log.read().floor()
        });
        let idle_at = shared.clock.after(IDLE_INTERVAL);
        // Joined before the first read: later changes set the waiter's flag.
        let subscription = Subscription::open(shared, subjects);
        let (cursor, phase) = match resumed {
            Some(cursor) => (cursor.revision, WatchPhase::Resumed),
            None => (published, WatchPhase::NeedsSnapshot),
        };
        let idle = Box::pin(sleep_until(idle_at));
        Self { subscription, filter, cursor, phase, idle_at, idle, _slot: slot }
    }

    /// Returns what the caller asked to watch.
    pub fn subjects(&self) -> WatchTarget {
        match &self.subscription.subjects {
            WatchScope::Namespace(namespace, _) => WatchTarget::Namespace(namespace.clone()),
            WatchScope::Services(keys) => WatchTarget::Services(keys.clone()),
        }
    }

    /// Returns the filter, which readers of snapshots apply.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Replaces the scope by the one of a permit of the same subjects, made at a later epoch. If
    /// the visible part of a namespace has changed, a snapshot of the new part follows; one in
    /// progress first ends with those of its instances that are still visible.
    pub fn set_scope(&mut self, permit: Permit<WatchScope>) {
        let scope = permit.into_act();
        if scope == self.subscription.subjects || planted("sight-not-narrowed") {
            return;
        }
        self.phase = match std::mem::replace(&mut self.phase, WatchPhase::NeedsSnapshot) {
            WatchPhase::Snapshot(rest, _) => {
                let is_visible = |chunk: &Arc<RosterChunk>| {
                    chunk.instances().next().is_some_and(|first| scope.includes(&first.service))
                };
                let rest: Vec<_> = rest.filter(is_visible).collect();
                WatchPhase::Snapshot(rest.into_iter(), AfterSnapshot::Snapshot)
            }
            _ => WatchPhase::NeedsSnapshot,
        };
        self.subscription.subjects = scope;
    }

    /// Waits for the next event. Returns it with the cursor after it. Cancel safe: a dropped future
    /// loses nothing.
    pub async fn next(&mut self) -> (WatchEvent, Cursor) {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Polls for the next event, as [`Self::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(WatchEvent, Cursor)> {
        let event = ready!(self.poll_event(context));
        let PublishedState { clock, history, .. } = &*self.subscription.shared;
        self.idle_at = clock.after(IDLE_INTERVAL);
        Poll::Ready((event, Cursor { history: *history, revision: self.cursor }))
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<WatchEvent> {
        loop {
            if let Some(event) = self.ready() {
                return Poll::Ready(event);
            }
            if self.subscription.waiter.poll_signal(context).is_ready() {
                continue;
            }
            ready!(self.idle.as_mut().poll(context));
            if self.idle.deadline() >= self.idle_at {
                return Poll::Ready(WatchEvent::Idle);
            }
            // An event was sent since the timer was set.
            self.idle.as_mut().reset(self.idle_at);
        }
    }

    /// Returns the event that is ready now.
    fn ready(&mut self) -> Option<WatchEvent> {
        match &mut self.phase {
            WatchPhase::NeedsSnapshot => Some(self.begin_snapshot()),
            WatchPhase::Snapshot(..) => Some(self.snapshot_part()),
            WatchPhase::Resumed => {
                self.phase = WatchPhase::Following;
                Some(self.follow().unwrap_or(WatchEvent::Idle))
            }
            WatchPhase::Following => self.follow(),
        }
    }

    fn begin_snapshot(&mut self) -> WatchEvent {
        let (services, revision) = self.subscription.capture();
        let chunks: Vec<_> =
            services.values().flat_map(|service| service.roster.chunks().iter().cloned()).collect();
        self.cursor = revision;
        self.phase = WatchPhase::Snapshot(chunks.into_iter(), AfterSnapshot::Changes);
        self.snapshot_part()
    }

    fn snapshot_part(&mut self) -> WatchEvent {
        let WatchPhase::Snapshot(rest, after) = &mut self.phase else { return WatchEvent::Idle };
        let mut bytes = 0;
        let mut chunks = Vec::new();
        while bytes < EVENT_BYTES_MAX
            && let Some(chunk) = rest.next()
        {
            bytes += chunk.footprint();
            chunks.push(chunk);
        }
        let last = rest.len() == 0;
        if last {
            self.phase = match after {
                AfterSnapshot::Changes => WatchPhase::Following,
                AfterSnapshot::Snapshot => WatchPhase::NeedsSnapshot,
            };
        }
        WatchEvent::Snapshot { chunks, last }
    }

    /// Reads the log up to the next matching change or the end.
    fn follow(&mut self) -> Option<WatchEvent> {
        loop {
            let published = self.subscription.shared.published();
            if published <= self.cursor {
                return None;
            }
            let Some((entries, read_to)) = self.subscription.read(self.cursor, published) else {
                self.phase = WatchPhase::NeedsSnapshot;
                return Some(self.begin_snapshot());
            };
            self.cursor = read_to;
            let changes: Vec<_> = entries
                .into_iter()
                .filter_map(|entry| through_filter(&self.filter, entry))
                .collect();
            if !changes.is_empty() {
                return Some(WatchEvent::Changes(changes));
            }
        }
    }
}

/// Returns a change as seen through a filter, if it is visible.
fn through_filter(filter: &Filter, entry: Arc<LogEntry>) -> Option<WatchedChange> {
    if planted("skip-change") && entry.change.revision().0.is_multiple_of(41) {
        return None;
    }
    Some(match filter.visibility(&entry.change)? {
        Visibility::Unchanged => WatchedChange::Whole(entry),
        Visibility::Added => WatchedChange::Entered(entry),
        Visibility::Removed => WatchedChange::Left(entry),
    })
}

/// The topics of a watch. Leaves them on drop.
#[derive(Debug)]
struct Subscription {
    shared: Arc<PublishedState>,
    subjects: WatchScope,
    waiter: Arc<Waiter>,
}

impl Subscription {
    fn open(shared: Arc<PublishedState>, subjects: WatchScope) -> Self {
        let waiter = shared.signals.waiter();
        match &subjects {
            WatchScope::Namespace(namespace, _) => {
                shared.signals.join_namespace(namespace, &waiter);
            }
            WatchScope::Services(keys) => {
                for key in keys {
                    shared.signals.join_service(key, &waiter);
                }
            }
        }
        shared.watches.fetch_add(1, Ordering::Relaxed);
        Self { shared, subjects, waiter }
    }

    /// Captures the watched services at one revision.
    ///
    /// Reads them one by one while changes continue, then reads again those that changed meanwhile,
    /// until none did: the result is the state at the last revision checked. Each round covers only
    /// the time of the previous one, so the rounds shrink quickly.
    fn capture(&self) -> (BTreeMap<Arc<ServiceKey>, Arc<Service>>, Revision) {
        let mut read_from = self.shared.published();
        let mut captured = self.read_all();
        loop {
            let published = self.shared.published();
            // To the end of the log: the directory may already have a change that is not published
            // yet, or may have dropped a service that lost its last instance.
            let end = Revision(u64::MAX);
            let read = self.shared.log.read().scan(read_from, end, usize::MAX, |change| {
                self.subjects.includes(&change.instance.service)
            });
            let Some((entries, _)) = read else {
                // The log dropped changes of this round.
                read_from = self.shared.published();
                captured = self.read_all();
                continue;
            };
            let Some(last) = entries.last() else { return (captured, published) };
            let ahead = last.change.revision() > published;
            read_from = published;
            let keys: HashSet<_> =
                entries.iter().map(|entry| &entry.change.instance.service).collect();
            self.read_into(&mut captured, keys.into_iter());
            if ahead {
                // The worker has written the log and not published the revision yet.
                std::thread::yield_now();
            }
        }
    }

    fn read_all(&self) -> BTreeMap<Arc<ServiceKey>, Arc<Service>> {
        let mut captured = BTreeMap::new();
        match &self.subjects {
            WatchScope::Namespace(namespace, sight) => {
                let key = |service| ServiceKey::shared(namespace.clone(), service);
                let mut names = self.shared.directory.names(namespace);
                names.retain(|name| sight.includes(name));
                let keys: Vec<_> = names.into_iter().map(key).collect();
                self.read_into(&mut captured, keys.iter());
            }
            WatchScope::Services(keys) => self.read_into(&mut captured, keys.iter()),
        }
        captured
    }

    fn read_into<'a>(
        &self,
        captured: &mut BTreeMap<Arc<ServiceKey>, Arc<Service>>,
        keys: impl Iterator<Item = &'a Arc<ServiceKey>>,
    ) {
        for key in keys {
            match self.shared.directory.service(key) {
                Some(service) => captured.insert(Arc::clone(key), service),
                None => captured.remove(key),
            };
        }
    }

    /// Returns the matching changes in `(after, published]`, or the first of them, and the revision
    /// read up to; `None` if the log no longer has all of them.
    fn read(&self, after: Revision, published: Revision) -> Option<(Vec<Arc<LogEntry>>, Revision)> {
        // Before the log, so that no lock is taken while it is locked. The directory has all
        // changes up to `published`, so each chain starts at one of them or later.
        let heads = self.heads();
        let log = self.shared.log.read();
        let resets = !planted("late-watcher-not-reset");
        let after = if resets { after } else { after.max(log.floor()) };
        if after < log.floor() {
            drop(log);
            return self.unchanged_since(after).then(|| (Vec::new(), published));
        }
        if let Some(heads) = heads {
            // The common case, few changes of few services: walk from change to change.
            let chains = heads.into_iter().try_fold(Vec::new(), |mut all, head| {
                let chain = log.chain(head, after, published, EVENT_CHANGES_MAX)?;
                if all.is_empty() {
                    return Some(chain);
                }
                all.extend(chain);
                Some(all)
            });
            if let Some(mut entries) = chains {
                entries.sort_unstable_by_key(|entry| entry.change.revision());
                return Some(fit_event(entries, published));
            }
        }
        let wanted = |change: &Change| self.subjects.includes(&change.instance.service);
        let (entries, read_to) = log.scan(after, published, SCAN_MAX, wanted)?;
        Some(fit_event(entries, read_to))
    }

    /// Returns the revisions of the latest changes of the watched services, unless a namespace is
    /// watched.
    fn heads(&self) -> Option<Vec<Revision>> {
        let WatchScope::Services(keys) = &self.subjects else { return None };
        let head = |key: &Arc<ServiceKey>| Some(self.shared.directory.service(key)?.revision);
        Some(keys.iter().filter_map(head).collect())
    }

    /// Returns whether all watched services exist and none has changed since: then it does not
    /// matter what the log has dropped.
    fn unchanged_since(&self, after: Revision) -> bool {
        let unchanged = |key: &Arc<ServiceKey>| {
            self.shared.directory.service(key).is_some_and(|service| service.revision <= after)
        };
        matches!(&self.subjects, WatchScope::Services(keys) if keys.iter().all(unchanged))
    }
}

/// Truncates entries to the size of an event. Returns them with the revision that they reach.
fn fit_event(mut entries: Vec<Arc<LogEntry>>, read_to: Revision) -> (Vec<Arc<LogEntry>>, Revision) {
    let mut bytes = 0;
    let fits = |entry: &&Arc<LogEntry>| {
        bytes += entry.change.instance.footprint();
        bytes <= EVENT_BYTES_MAX
    };
    // At least one: the size of an instance has its own limit.
    let count = entries.iter().take(EVENT_CHANGES_MAX).take_while(fits).count().max(1);
    if count >= entries.len() {
        return (entries, read_to);
    }
    entries.truncate(count);
    let read_to = entries.last().map_or(read_to, |entry| entry.change.revision());
    (entries, read_to)
}

impl Drop for Subscription {
    fn drop(&mut self) {
        match &self.subjects {
            WatchScope::Namespace(namespace, _) => {
                self.shared.signals.leave_namespace(namespace, &self.waiter);
            }
            WatchScope::Services(keys) => {
                for key in keys {
                    self.shared.signals.leave_service(key, &self.waiter);
                }
            }
        }
        self.shared.watches.fetch_sub(1, Ordering::Relaxed);
    }
}
