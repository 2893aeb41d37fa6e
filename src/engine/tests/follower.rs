//! A follower, which folds the events of a watch and compares the result with the committed
//! changes.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::{sync::watch, task::yield_now};
use waypost_core::testing::{Identity, fold, identity};

use super::{TestEngine, may_watch};
use crate::{
    auth::WatchTarget,
    engine::{Engine, Watch, WatchEvent, WatchedChange},
    model::{Change, Filter, Instance, Revision, ServiceKey},
};

/// Folds the events of a watch, and compares the result with the committed changes.
pub(super) struct Follower {
    pub(super) engine: Engine,
    pub(super) watch: Watch,
    pub(super) subjects: WatchTarget,
    pub(super) filter: Filter,
    pub(super) cursor: Revision,
    /// The folded state, and the parts of an incomplete snapshot.
    state: BTreeMap<Identity, Instance>,
    parts: Option<BTreeMap<Identity, Instance>>,
    committed: Arc<Mutex<Vec<Change>>>,
    /// The committed state at the cursor.
    expected: BTreeMap<Identity, Instance>,
    expected_at: usize,
    pub(super) snapshots: usize,
    pub(super) changes: usize,
}

impl Follower {
    pub(super) fn new(
        test: &TestEngine,
        committed: &Arc<Mutex<Vec<Change>>>,
        subjects: WatchTarget,
        filter: Filter,
    ) -> Self {
        let engine = test.engine.clone();
        Self {
            watch: engine.watch(may_watch(subjects.clone()), filter.clone(), None),
            engine,
            subjects,
            filter,
            cursor: Revision(0),
            state: BTreeMap::new(),
            parts: None,
            committed: Arc::clone(committed),
            expected: BTreeMap::new(),
            expected_at: 0,
            snapshots: 0,
            changes: 0,
        }
    }

    pub(super) async fn receive(&mut self) {
        let (event, cursor) = self.watch.next().await;
        self.apply(event, cursor.revision);
    }

    fn apply(&mut self, event: WatchEvent, cursor: Revision) {
        assert!(cursor >= self.cursor, "from {} back to {cursor}", self.cursor);
        match event {
            WatchEvent::Idle => {}
            WatchEvent::Snapshot { chunks, last } => {
                let mut parts = self.parts.take().unwrap_or_default();
                let instances = chunks.iter().flat_map(|chunk| chunk.instances());
                for instance in instances.filter(|i| self.filter.matches(&i.content)) {
                    let before = parts.insert(identity(instance), Instance::clone(instance));
                    assert_eq!(before, None, "an instance appears twice");
                }
                if !last {
                    self.parts = Some(parts);
                    return;
                }
                self.state = parts;
                self.snapshots += 1;
            }
            WatchEvent::Changes(changes) => {
                assert!(!changes.is_empty());
                for change in changes {
                    self.change(&change, cursor);
                }
            }
        }
        assert!(self.parts.is_none(), "a snapshot is incomplete");
        self.cursor = cursor;
        self.compare();
    }

    fn change(&mut self, change: &WatchedChange, up_to: Revision) {
        self.changes += 1;
        let (WatchedChange::Whole(entry)
        | WatchedChange::Entered(entry)
        | WatchedChange::Left(entry)) = change;
        let revision = entry.change.revision();
        assert!(revision > self.cursor && revision <= up_to, "{revision} is out of order");
        self.cursor = revision;
        let after = &entry.change.instance;
        match change {
            WatchedChange::Whole(entry) => fold(&mut self.state, &entry.change),
            WatchedChange::Entered(_) => {
                let before = self.state.insert(identity(after), Instance::clone(after));
                assert_eq!(before, None, "it matched before");
            }
            WatchedChange::Left(_) => {
                assert!(self.state.remove(&identity(after)).is_some(), "it did not match before");
            }
        }
    }

    fn concerns(&self, key: &ServiceKey) -> bool {
        match &self.subjects {
            WatchTarget::Namespace(namespace) => key.namespace == *namespace,
            WatchTarget::Services(keys) => keys.contains(key),
        }
    }

    fn compare(&mut self) {
        let up_to = usize::try_from(self.cursor.0).unwrap();
        {
            let committed = self.committed.lock();
            for change in &committed[self.expected_at..up_to] {
                fold(&mut self.expected, change);
            }
        }
        self.expected_at = up_to;
        let wanted = self.expected.iter().filter(|((key, _), instance)| {
            self.concerns(key) && self.filter.matches(&instance.content)
        });
        assert!(self.state.iter().eq(wanted), "wrong state at {}", self.cursor);
    }

    /// Returns the number of changes up to the cursor that concern the watch.
    pub(super) fn concerning(&self) -> usize {
        let committed = self.committed.lock();
        let concerning =
            committed[..self.expected_at].iter().filter(|c| self.concerns(&c.instance.service));
        concerning.count()
    }

    /// Resumes at its cursor, as after a lost connection.
    fn reconnect(&mut self) {
        let cursor = self.engine.cursor(self.cursor);
        let (subjects, filter) = (self.subjects.clone(), self.filter.clone());
        // The connection takes an incomplete snapshot with it.
        self.parts = None;
        self.watch = self.engine.watch(may_watch(subjects), filter, Some(cursor));
    }

    /// Receives events at a random pace until the last revision.
    pub(super) async fn run(
        mut self,
        mut end: watch::Receiver<Option<Revision>>,
        mut random: Rng,
    ) -> Self {
        let pause_max = if random.bool() { 1 } else { 400 };
        loop {
            tokio::select! {
                (event, cursor) = self.watch.next() => self.apply(event, cursor.revision),
                ended = end.changed() => {
                    ended.expect("the writers send the last revision");
                    break;
                }
            }
            if random.u8(..20) == 0 {
                self.reconnect();
            }
            for _ in 0..random.u32(..pause_max) {
                yield_now().await;
            }
        }
        let last = end.borrow().expect("the last revision was sent");
        while self.cursor < last || self.parts.is_some() {
            // A resumed watch sends an event at once, even without a matching change.
            self.reconnect();
            self.receive().await;
            while self.parts.is_some() {
                self.receive().await;
            }
        }
        self
    }
}
