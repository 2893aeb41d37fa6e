//! A watch that is folded as the contract says, with every rule of cursors checked on the way.

use std::collections::BTreeMap;

use tonic::{Status, Streaming, transport::Channel};

use super::{
    proto::{
        Change, ChangeKind, ChangeReason, Changes, Cursor, Instance, Snapshot, WatchRequest,
        WatchResponse, discovery_client::DiscoveryClient, watch_response::Event,
    },
    soon,
};

/// Namespace, service and id.
pub(crate) type Identity = (String, String, String);

pub(crate) fn identity(instance: &Instance) -> Identity {
    (instance.namespace.clone(), instance.service.clone(), instance.id.clone())
}

/// A reader of a watch.
pub(crate) struct Follower {
    stream: Streaming<WatchResponse>,
    filtered: bool,
    /// What folding gave so far; whole unless a snapshot is under way.
    pub(crate) state: BTreeMap<Identity, Instance>,
    pub(crate) cursor: Option<Cursor>,
    /// The parts of a snapshot that has more to come.
    gathering: Option<BTreeMap<Identity, Instance>>,
    /// Whole snapshots so far.
    pub(crate) snapshots: usize,
    /// Parts of snapshots so far.
    pub(crate) parts: usize,
    /// Every change so far.
    pub(crate) changes: Vec<Change>,
}

impl Follower {
    pub(crate) async fn open(
        discovery: &mut DiscoveryClient<Channel>,
        request: WatchRequest,
    ) -> Self {
        Self::resume(discovery, request, BTreeMap::new()).await
    }

    /// Goes on from the request's `resume` with the state that a follower had there.
    pub(crate) async fn resume(
        discovery: &mut DiscoveryClient<Channel>,
        request: WatchRequest,
        state: BTreeMap<Identity, Instance>,
    ) -> Self {
        Self::try_resume(discovery, request, state).await.expect("the watch opens")
    }

    /// As [`Self::resume`], with a server that may be away.
    pub(crate) async fn try_resume(
        discovery: &mut DiscoveryClient<Channel>,
        request: WatchRequest,
        state: BTreeMap<Identity, Instance>,
    ) -> Result<Self, Status> {
        let filtered = request.filter.is_some();
        let cursor = request.resume.clone();
        let stream = soon("a watch", discovery.watch(request)).await?.into_inner();
        Ok(Self {
            stream,
            filtered,
            state,
            cursor,
            gathering: None,
            snapshots: 0,
            parts: 0,
            changes: Vec::new(),
        })
    }

    /// Opens a watch and folds its snapshot.
    pub(crate) async fn ready(
        discovery: &mut DiscoveryClient<Channel>,
        request: WatchRequest,
    ) -> Self {
        let mut follower = Self::open(discovery, request).await;
        while follower.snapshots == 0 {
            follower.message().await;
        }
        follower
    }

    pub(crate) fn revision(&self) -> u64 {
        self.cursor.as_ref().map_or(0, |cursor| cursor.revision)
    }

    /// Whether no snapshot is under way.
    pub(crate) fn is_whole(&self) -> bool {
        self.gathering.is_none()
    }

    /// Folds the next message and returns it. Cancel safe: a message is folded or not received.
    pub(crate) async fn message(&mut self) -> WatchResponse {
        self.try_message().await.expect("the watch goes on")
    }

    /// As [`Self::message`], with a server that may go away.
    pub(crate) async fn try_message(&mut self) -> Result<WatchResponse, Status> {
        let message = soon("a message of a watch", self.stream.message()).await?;
        let message = message.expect("a watch ends with an error alone");
        self.fold(&message);
        Ok(message)
    }

    /// The error that ends the watch, after whatever it still had to say.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match soon("the end of a watch", self.stream.message()).await {
                Ok(Some(message)) => self.fold(&message),
                Ok(None) => panic!("the watch ended without an error"),
                Err(status) => return status,
            }
        }
    }

    /// Folds until the state is that of the revision or of a later one.
    pub(crate) async fn reach(&mut self, revision: u64) {
        while self.snapshots == 0 && self.cursor.is_none()
            || self.gathering.is_some()
            || self.revision() < revision
        {
            self.message().await;
        }
    }

    /// The changes that come next, as many as asked for.
    pub(crate) async fn next_changes(&mut self, count: usize) -> Vec<Change> {
        let seen = self.changes.len();
        while self.changes.len() < seen + count {
            self.message().await;
        }
        assert_eq!(self.changes.len(), seen + count, "more changes than expected");
        self.changes[seen..].to_vec()
    }

    /// The change that comes next.
    pub(crate) async fn next_change(&mut self) -> Change {
        self.next_changes(1).await.remove(0)
    }

    fn fold(&mut self, message: &WatchResponse) {
        let cursor = message.cursor.as_ref().expect("every message has a cursor");
        if let Some(before) = &self.cursor
            && before.history_id == cursor.history_id
        {
            assert!(before.revision <= cursor.revision, "{before:?} then {cursor:?}");
        }
        match message.event.as_ref().expect("every message has an event") {
            Event::Snapshot(snapshot) => self.fold_snapshot(snapshot, cursor),
            Event::Changes(changes) => self.fold_changes(changes, cursor),
            Event::Idle(_) => {
                assert!(self.gathering.is_none(), "idle within a snapshot");
            }
        }
        self.cursor = Some(cursor.clone());
    }

    fn fold_snapshot(&mut self, snapshot: &Snapshot, cursor: &Cursor) {
        self.parts += 1;
        if self.gathering.is_some() {
            assert_eq!(self.cursor.as_ref(), Some(cursor), "the parts of one snapshot agree");
        }
        let gathered = self.gathering.get_or_insert_default();
        for instance in &snapshot.instances {
            assert!(instance.modified_revision <= cursor.revision, "from the future: {instance:?}");
            let twice = gathered.insert(identity(instance), instance.clone());
            assert_eq!(twice, None, "an instance is in a snapshot once");
        }
        if snapshot.last {
            self.state = self.gathering.take().unwrap_or_default();
            self.snapshots += 1;
        }
    }

    fn fold_changes(&mut self, changes: &Changes, cursor: &Cursor) {
        assert!(self.gathering.is_none(), "changes within a snapshot");
        assert!(!changes.changes.is_empty(), "changes without a change");
        let mut revision = self.revision();
        for change in &changes.changes {
            assert!(change.revision > revision, "{} after {revision}", change.revision);
            revision = change.revision;
            self.fold_change(change);
        }
        assert!(revision <= cursor.revision, "a change beyond its cursor");
    }

    fn fold_change(&mut self, change: &Change) {
        let instance = change.instance.as_ref().expect("every change has its instance");
        assert_eq!(instance.modified_revision, change.revision);
        let reason = change.reason();
        let key = identity(instance);
        match change.kind() {
            ChangeKind::Added => {
                assert_eq!(reason, ChangeReason::Unspecified);
                assert_eq!(self.state.insert(key, instance.clone()), None, "added twice");
            }
            ChangeKind::Updated => {
                let reasons = [ChangeReason::Unspecified, ChangeReason::Replaced];
                assert!(reasons.contains(&reason), "{reason:?}");
                let before = self.state.insert(key, instance.clone());
                assert_ne!(before, None, "updated what was not there");
            }
            ChangeKind::Removed => {
                let bare = reason == ChangeReason::Unspecified;
                assert!(self.filtered || !bare, "a removal without a reason");
                assert_ne!(self.state.remove(&key), None, "removed what was not there");
            }
            ChangeKind::Unspecified => panic!("a change of no kind"),
        }
        self.changes.push(change.clone());
    }
}
