//! A watch that is folded into a state, as a client folds it.
//!
//! Invariant: every rule that the protocol has for cursors, snapshots and changes is checked with
//! every message.

use std::collections::BTreeMap;

use tonic::{Status, Streaming, transport::Channel};

use waypost_client::proto::{
    Change, ChangeKind, ChangeReason, Changes, Cursor, Instance, Snapshot, WatchRequest,
    WatchResponse, discovery_client::DiscoveryClient, watch_response::Event,
};

use crate::{
    registry::{Identity, identity},
    wait::soon,
};

/// Applies a change to a state.
///
/// # Panics
/// If the change has no instance.
pub fn apply(state: &mut BTreeMap<Identity, Instance>, change: &Change) -> Option<Instance> {
    let instance = change.instance.clone().expect("a change has its instance");
    match change.kind() {
        ChangeKind::Removed => state.remove(&identity(&instance)),
        _ => state.insert(identity(&instance), instance),
    }
}

/// A reader of a watch.
#[derive(Debug)]
pub struct Follower {
    stream: Streaming<WatchResponse>,
    filtered: bool,
    /// The folded state; complete unless a snapshot is in progress.
    pub state: BTreeMap<Identity, Instance>,
    /// The cursor of the last message.
    pub cursor: Option<Cursor>,
    /// The parts received of a snapshot whose last part has not come.
    gathering: Option<BTreeMap<Identity, Instance>>,
    /// Complete snapshots received.
    pub snapshots: usize,
    /// Parts of snapshots received.
    pub parts: usize,
    /// Every change received.
    pub changes: Vec<Change>,
}

impl Follower {
    /// Opens a watch.
    ///
    /// # Panics
    /// If the watch does not open.
    pub async fn open(discovery: &mut DiscoveryClient<Channel>, request: WatchRequest) -> Self {
        Self::resume(discovery, request, BTreeMap::new()).await
    }

    /// Resumes a watch from the request's `resume`, with the state that a follower had there.
    ///
    /// # Panics
    /// If the watch does not open.
    pub async fn resume(
        discovery: &mut DiscoveryClient<Channel>,
        request: WatchRequest,
        state: BTreeMap<Identity, Instance>,
    ) -> Self {
        Self::try_resume(discovery, request, state).await.expect("the watch opens")
    }

    /// Resumes a watch of a server that may be unreachable.
    ///
    /// # Errors
    /// The watch does not open.
    pub async fn try_resume(
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
    ///
    /// # Panics
    /// If the watch does not open.
    pub async fn ready(discovery: &mut DiscoveryClient<Channel>, request: WatchRequest) -> Self {
        let mut follower = Self::open(discovery, request).await;
        while follower.snapshots == 0 {
            follower.message().await;
        }
        follower
    }

    /// Returns the revision of the last message.
    pub fn revision(&self) -> u64 {
        self.cursor.as_ref().map_or(0, |cursor| cursor.revision)
    }

    /// Returns whether no snapshot is in progress.
    pub fn is_complete(&self) -> bool {
        self.gathering.is_none()
    }

    /// Folds the next message and returns it. Cancel safe: a message is folded or not received.
    ///
    /// # Panics
    /// If the watch ends.
    pub async fn message(&mut self) -> WatchResponse {
        self.try_message().await.expect("the watch has another message")
    }

    /// Folds the next message of a server that may become unreachable. Cancel safe.
    ///
    /// # Errors
    /// The watch has ended.
    ///
    /// # Panics
    /// If the watch ends without an error.
    pub async fn try_message(&mut self) -> Result<WatchResponse, Status> {
        let message = soon("a message of a watch", self.stream.message()).await?;
        let message = message.expect("a watch ends only with an error");
        self.fold(&message);
        Ok(message)
    }

    /// Folds what still comes, and returns the error that ends the watch.
    ///
    /// # Panics
    /// If the watch ends without an error.
    pub async fn end(&mut self) -> Status {
        loop {
            match soon("the end of a watch", self.stream.message()).await {
                Ok(Some(message)) => self.fold(&message),
                Ok(None) => panic!("the watch ended without an error"),
                Err(status) => return status,
            }
        }
    }

    /// Folds until the state is that of the revision or of a later one.
    ///
    /// # Panics
    /// If the watch ends.
    pub async fn reach(&mut self, revision: u64) {
        while self.snapshots == 0 && self.cursor.is_none()
            || self.gathering.is_some()
            || self.revision() < revision
        {
            self.message().await;
        }
    }

    /// Folds and returns the next `count` changes.
    ///
    /// # Panics
    /// If more changes come in the same message.
    pub async fn next_changes(&mut self, count: usize) -> Vec<Change> {
        let seen = self.changes.len();
        while self.changes.len() < seen + count {
            self.message().await;
        }
        assert_eq!(self.changes.len(), seen + count, "more changes than expected");
        self.changes[seen..].to_vec()
    }

    /// Folds and returns the next change.
    ///
    /// # Panics
    /// If more changes come in the same message.
    pub async fn next_change(&mut self) -> Change {
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
                assert!(self.gathering.is_none(), "an idle message within a snapshot");
            }
        }
        self.cursor = Some(cursor.clone());
    }

    fn fold_snapshot(&mut self, snapshot: &Snapshot, cursor: &Cursor) {
        self.parts += 1;
        if self.gathering.is_some() {
            assert_eq!(
                self.cursor.as_ref(),
                Some(cursor),
                "the parts of a snapshot have one cursor"
            );
        }
        let gathered = self.gathering.get_or_insert_default();
        for instance in &snapshot.instances {
            assert!(
                instance.modified_revision <= cursor.revision,
                "newer than its snapshot: {instance:?}"
            );
            let duplicate = gathered.insert(identity(instance), instance.clone());
            assert_eq!(duplicate, None, "an instance is in a snapshot once");
        }
        if snapshot.last {
            self.state = self.gathering.take().unwrap_or_default();
            self.snapshots += 1;
        }
    }

    fn fold_changes(&mut self, changes: &Changes, cursor: &Cursor) {
        assert!(self.gathering.is_none(), "changes within a snapshot");
        assert!(!changes.changes.is_empty(), "a message of changes is empty");
        let mut revision = self.revision();
        for change in &changes.changes {
            assert!(change.revision > revision, "{} after {revision}", change.revision);
            revision = change.revision;
            self.fold_change(change);
        }
        assert!(revision <= cursor.revision, "a change is newer than its cursor");
    }

    fn fold_change(&mut self, change: &Change) {
        let instance = change.instance.as_ref().expect("every change has its instance");
        assert_eq!(instance.modified_revision, change.revision);
        let reason = change.reason();
        let before = apply(&mut self.state, change);
        match change.kind() {
            ChangeKind::Added => {
                assert_eq!(reason, ChangeReason::Unspecified);
                assert_eq!(before, None, "added twice");
            }
            ChangeKind::Updated => {
                let reasons = [ChangeReason::Unspecified, ChangeReason::Replaced];
                assert!(reasons.contains(&reason), "{reason:?}");
                assert_ne!(before, None, "updated an instance that is not in the state");
            }
            ChangeKind::Removed => {
                let without_reason = reason == ChangeReason::Unspecified;
                assert!(self.filtered || !without_reason, "a removal without a reason");
                assert_ne!(before, None, "removed an instance that is not in the state");
            }
            ChangeKind::Unspecified => panic!("a change without a kind"),
        }
        self.changes.push(change.clone());
    }
}
