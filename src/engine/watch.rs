//! A watch: a cursor into the log, moved by its reader. What it costs does not depend on how slow
//! its reader is: it keeps no queue, and whoever falls behind the log starts over with a snapshot.

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

use super::{PublishedState, signals::Waiter};
use crate::{
    model::{Change, Cursor, Filter, Name, Revision, ServiceKey, Visibility},
    registry::{LogEntry, RosterChunk, Service},
};

/// How long a watch stays silent at most; the contract's 10 s with room to travel.
const IDLE_INTERVAL: Duration = Duration::from_secs(8);
/// Changes in one event at most.
const EVENT_CHANGES_MAX: usize = 256;
/// How far one event reads on through the log at most.
const SCAN_MAX: usize = 4096;
/// Bytes of instances after which an event is full. What a reader does not take waits in the
/// buffers of its stream, a whole event at a time: this bounds what each of the slow ones costs.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// What a watch follows.
#[derive(Debug, Clone)]
pub enum Subjects {
    /// Every service of a namespace.
    Namespace(Name),
    /// These services, which need not exist.
    Services(HashSet<Arc<ServiceKey>>),
}

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    subscription: Subscription,
    filter: Filter,
    /// What the reader has: everything that concerns it up to here.
    cursor: Revision,
    phase: WatchPhase,
    /// When the reader has to hear something.
    idle_at: Instant,
    /// Wakes it then, or earlier: it is set anew when it has gone off, not with each event.
    idle: Pin<Box<Sleep>>,
}

#[derive(Debug)]
enum WatchPhase {
    /// A snapshot is to come.
    NeedsSnapshot,
    /// A snapshot is under way: these are its further chunks.
    Snapshot(vec::IntoIter<Arc<RosterChunk>>),
    /// The reader resumed and has heard nothing yet.
    Resumed,
    /// The reader follows the log.
    Following,
}

/// What a reader is told.
#[derive(Debug)]
pub enum WatchEvent {
    /// A part of the state at the cursor.
    Snapshot {
        /// The instances of these chunks that match the filter.
        chunks: Vec<Arc<RosterChunk>>,
        /// Whether the state is whole.
        last: bool,
    },
    /// What happened up to the cursor.
    Changes(Vec<WatchedChange>),
    /// Nothing happened up to the cursor.
    Idle,
}

/// A change as a watch sees it.
#[derive(Debug)]
pub enum WatchedChange {
    /// As it happened.
    Whole(Arc<LogEntry>),
    /// The instance came to match the filter.
    Entered(Arc<LogEntry>),
    /// The instance no longer matches the filter.
    Left(Arc<LogEntry>),
}

impl Watch {
    pub(super) fn open(
        shared: Arc<PublishedState>,
        subjects: Subjects,
        filter: Filter,
        resume: Option<Cursor>,
    ) -> Self {
        let published = shared.published();
        let resumed = resume.filter(|cursor| {
            cursor.history == shared.history
                && cursor.revision <= published
                && cursor.revision >= shared.log.read().floor()
        });
        let idle_at = shared.clock.after(IDLE_INTERVAL);
        // Joined before the first look: what happens from here on leaves a permit.
        let subscription = Subscription::open(shared, subjects);
        let (cursor, phase) = match resumed {
            Some(cursor) => (cursor.revision, WatchPhase::Resumed),
            None => (published, WatchPhase::NeedsSnapshot),
        };
        let idle = Box::pin(sleep_until(idle_at));
        Self { subscription, filter, cursor, phase, idle_at, idle }
    }

    /// The filter, by which readers of snapshots choose.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The next event and the position after it; waits where there is nothing to tell. Cancel safe:
    /// nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> (WatchEvent, Cursor) {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Self::next`], for whoever is polled.
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
            // It was not silent for all that time.
            self.idle.as_mut().reset(self.idle_at);
        }
    }

    /// What there is to tell now.
    fn ready(&mut self) -> Option<WatchEvent> {
        match &mut self.phase {
            WatchPhase::NeedsSnapshot => Some(self.begin_snapshot()),
            WatchPhase::Snapshot(_) => Some(self.snapshot_part()),
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
        self.phase = WatchPhase::Snapshot(chunks.into_iter());
        self.snapshot_part()
    }

    fn snapshot_part(&mut self) -> WatchEvent {
        let WatchPhase::Snapshot(rest) = &mut self.phase else { return WatchEvent::Idle };
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
            self.phase = WatchPhase::Following;
        }
        WatchEvent::Snapshot { chunks, last }
    }

    /// Reads on through the log until there is something to tell or the end is reached.
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

/// How a change looks through a filter, if it is seen at all.
fn through_filter(filter: &Filter, entry: Arc<LogEntry>) -> Option<WatchedChange> {
    if waypost_core::failpoint::planted("skip-change")
        && entry.change.revision().0.is_multiple_of(41)
    {
        return None;
    }
    Some(match filter.visibility(&entry.change)? {
        Visibility::Unchanged => WatchedChange::Whole(entry),
        Visibility::Added => WatchedChange::Entered(entry),
        Visibility::Removed => WatchedChange::Left(entry),
    })
}

/// A watch's place among the signals, given back when it ends.
#[derive(Debug)]
struct Subscription {
    shared: Arc<PublishedState>,
    subjects: Subjects,
    waiter: Arc<Waiter>,
}

impl Subscription {
    fn open(shared: Arc<PublishedState>, subjects: Subjects) -> Self {
        let waiter = shared.signals.waiter();
        match &subjects {
            Subjects::Namespace(namespace) => shared.signals.join_namespace(namespace, &waiter),
            Subjects::Services(keys) => {
                for key in keys {
                    shared.signals.join_service(key, &waiter);
                }
            }
        }
        shared.watches.fetch_add(1, Ordering::Relaxed);
        Self { shared, subjects, waiter }
    }

    fn concerns(&self, key: &Arc<ServiceKey>) -> bool {
        match &self.subjects {
            Subjects::Namespace(namespace) => key.namespace == *namespace,
            Subjects::Services(keys) => keys.contains(key),
        }
    }

    /// The followed services as they all were at one position.
    ///
    /// They are read one by one while changes go on. What changed meanwhile is read again, until
    /// nothing did: then what was read is the state at the last position looked at. Each round
    /// covers only the time of the round before, so the rounds shrink quickly.
    fn capture(&self) -> (BTreeMap<Arc<ServiceKey>, Arc<Service>>, Revision) {
        let mut read_from = self.shared.published();
        let mut captured = self.read_all();
        loop {
            let published = self.shared.published();
            // To the end of the log: what is not published yet may show in the directory already,
            // or no longer show, where a service lost its last instance.
            let end = Revision(u64::MAX);
            let read =
                self.shared.log.read().scan(read_from, end, usize::MAX, |change| {
                    self.concerns(&change.instance.service)
                });
            let Some((entries, _)) = read else {
                // The log ran past the whole round.
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
                // The worker is between the log and publishing the position.
                std::thread::yield_now();
            }
        }
    }

    fn read_all(&self) -> BTreeMap<Arc<ServiceKey>, Arc<Service>> {
        let mut captured = BTreeMap::new();
        match &self.subjects {
            Subjects::Namespace(namespace) => {
                let key = |service| ServiceKey::shared(namespace.clone(), service);
                let names = self.shared.directory.names(namespace);
                let keys: Vec<_> = names.into_iter().map(key).collect();
                self.read_into(&mut captured, keys.iter());
            }
            Subjects::Services(keys) => self.read_into(&mut captured, keys.iter()),
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

    /// The changes that concern the watch in `(after, published]`, or the first of them, and the
    /// position read up to. `None`: the log no longer holds them all.
    fn read(&self, after: Revision, published: Revision) -> Option<(Vec<Arc<LogEntry>>, Revision)> {
        // Before the log: no lock is taken while it is locked. All changes up to `published` are in the
        // directory already, so each chain begins at one of them or later.
        let heads = self.heads();
        let log = self.shared.log.read();
        let resets = !waypost_core::failpoint::planted("late-watcher-not-reset");
        let after = if resets { after } else { after.max(log.floor()) };
        if after < log.floor() {
            drop(log);
            return self.unchanged_since(after).then(|| (Vec::new(), published));
        }
        if let Some(heads) = heads {
            // Most often little happened to few services: go from change to change.
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
        let wanted = |change: &Change| self.concerns(&change.instance.service);
        let (entries, read_to) = log.scan(after, published, SCAN_MAX, wanted)?;
        Some(fit_event(entries, read_to))
    }

    /// The revisions of the latest changes to the followed services, where these are few and known.
    fn heads(&self) -> Option<Vec<Revision>> {
        let Subjects::Services(keys) = &self.subjects else { return None };
        let head = |key: &Arc<ServiceKey>| Some(self.shared.directory.service(key)?.revision);
        Some(keys.iter().filter_map(head).collect())
    }

    /// Whether all followed services live and none has changed since: then it does not matter how
    /// far the log has moved on.
    fn unchanged_since(&self, after: Revision) -> bool {
        let unchanged = |key: &Arc<ServiceKey>| {
            self.shared.directory.service(key).is_some_and(|service| service.revision <= after)
        };
        matches!(&self.subjects, Subjects::Services(keys) if keys.iter().all(unchanged))
    }
}

/// As many of the entries as one event takes, and the position that this reads up to.
fn fit_event(mut entries: Vec<Arc<LogEntry>>, read_to: Revision) -> (Vec<Arc<LogEntry>>, Revision) {
    let mut bytes = 0;
    let fits = |entry: &&Arc<LogEntry>| {
        bytes += entry.change.instance.footprint();
        bytes <= EVENT_BYTES_MAX
    };
    // One always goes: its size has a limit of its own.
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
            Subjects::Namespace(namespace) => {
                self.shared.signals.leave_namespace(namespace, &self.waiter);
            }
            Subjects::Services(keys) => {
                for key in keys {
                    self.shared.signals.leave_service(key, &self.waiter);
                }
            }
        }
        self.shared.watches.fetch_sub(1, Ordering::Relaxed);
    }
}
