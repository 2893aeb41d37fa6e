//! Folds the messages of a watch into events. Pure.
//!
//! Invariant: no change is lost or repeated, across resumed streams and new snapshots.

use std::collections::BTreeMap;

use waypost_client::{
    Instance,
    proto::{Change, ChangeKind, Cursor, Snapshot, WatchResponse, watch_response},
};

use crate::cli::output::{kind_name, reason_name};

/// One line of the output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstanceEvent {
    /// `PRESENT`, or the kind of a change.
    pub(crate) kind: &'static str,
    pub(crate) instance: Instance,
    pub(crate) reason: Option<String>,
    pub(crate) revision: u64,
}

/// The instances of the watched services, at a cursor.
#[derive(Debug, Default)]
pub(crate) struct FoldedWatch {
    /// By service and id: a watch has one namespace.
    instances: BTreeMap<(String, String), Instance>,
    /// The parts received of an incomplete snapshot.
    parts: Vec<Instance>,
    cursor: Option<Cursor>,
}

impl FoldedWatch {
    /// Returns the cursor to resume from; `None` before the first snapshot is complete.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.cursor.clone()
    }

    /// Discards the incomplete snapshot of a stream that ended.
    pub(crate) fn disconnected(&mut self) {
        self.parts.clear();
    }

    /// Applies a message. Returns the events that it adds.
    pub(crate) fn fold(&mut self, message: WatchResponse) -> Vec<InstanceEvent> {
        let WatchResponse { cursor, event } = message;
        let events = match event {
            Some(watch_response::Event::Snapshot(Snapshot { instances, last })) => {
                self.parts.extend(instances);
                if !last {
                    return Vec::new();
                }
                self.replace(cursor.as_ref().map_or(0, |cursor| cursor.revision))
            }
            Some(watch_response::Event::Changes(changes)) => {
                changes.changes.into_iter().filter_map(|change| self.apply(change)).collect()
            }
            Some(watch_response::Event::Idle(_)) | None => Vec::new(),
        };
        self.cursor = cursor.or(self.cursor.take());
        events
    }

    fn apply(&mut self, change: Change) -> Option<InstanceEvent> {
        let kind = change.kind();
        let instance = change.instance?;
        let key = key(&instance);
        if kind == ChangeKind::Removed {
            self.instances.remove(&key);
        } else {
            self.instances.insert(key, instance.clone());
        }
        let reason = reason_name(change.reason);
        Some(InstanceEvent { kind: kind_name(kind), instance, reason, revision: change.revision })
    }

    /// Replaces all instances by the snapshot. After the first snapshot, returns the differences as
    /// changes, whose reasons are unknown.
    fn replace(&mut self, revision: u64) -> Vec<InstanceEvent> {
        let parts = self.parts.drain(..).map(|instance| (key(&instance), instance)).collect();
        let before = std::mem::replace(&mut self.instances, parts);
        let first = self.cursor.is_none();
        let removed = before.iter().filter(|(key, _)| !self.instances.contains_key(*key));
        let removed = removed.map(|(_, instance)| InstanceEvent {
            kind: kind_name(ChangeKind::Removed),
            instance: instance.clone(),
            reason: None,
            revision,
        });
        let present = self.instances.iter().filter_map(|(key, instance)| {
            let kind = match before.get(key) {
                _ if first => "PRESENT",
                None => kind_name(ChangeKind::Added),
                Some(known) if known == instance => return None,
                Some(_) => kind_name(ChangeKind::Updated),
            };
            let (instance, revision) = (instance.clone(), instance.modified_revision);
            Some(InstanceEvent { kind, instance, reason: None, revision })
        });
        removed.chain(present).collect()
    }
}

fn key(instance: &Instance) -> (String, String) {
    (instance.service.clone(), instance.id.clone())
}

#[cfg(test)]
mod tests {
    use waypost_client::proto::{ChangeReason, Changes, Idle};

    use super::*;

    fn instance(id: &str, revision: u64) -> Instance {
        Instance { id: id.into(), modified_revision: revision, ..Instance::default() }
    }

    fn message(revision: u64, event: watch_response::Event) -> WatchResponse {
        let cursor = Cursor { history_id: "h".into(), revision };
        WatchResponse { cursor: Some(cursor), event: Some(event) }
    }

    fn snapshot(revision: u64, instances: &[Instance], last: bool) -> WatchResponse {
        let instances = instances.to_vec();
        message(revision, watch_response::Event::Snapshot(Snapshot { instances, last }))
    }

    fn lines(events: &[InstanceEvent]) -> Vec<String> {
        events
            .iter()
            .map(|event| format!("{} {} {}", event.kind, event.instance.id, event.revision))
            .collect()
    }

    #[test]
    fn first_snapshot_is_shown_once_it_is_complete() {
        let mut state = FoldedWatch::default();
        assert!(state.fold(snapshot(9, &[instance("b", 2)], false)).is_empty());
        assert_eq!(state.cursor(), None);
        let events = state.fold(snapshot(9, &[instance("a", 1)], true));
        assert_eq!(lines(&events), ["PRESENT a 1", "PRESENT b 2"]);
        assert_eq!(state.cursor().unwrap().revision, 9);
    }

    #[test]
    fn changes_have_their_reasons() {
        let mut state = FoldedWatch::default();
        state.fold(snapshot(1, &[instance("a", 1)], true));
        let change = Change {
            kind: ChangeKind::Removed.into(),
            instance: Some(instance("a", 2)),
            reason: ChangeReason::Expired.into(),
            revision: 2,
        };
        let changes = watch_response::Event::Changes(Changes { changes: vec![change] });
        let events = state.fold(message(2, changes));
        assert_eq!(lines(&events), ["REMOVED a 2"]);
        assert_eq!(events[0].reason.as_deref(), Some("EXPIRED"));
    }

    #[test]
    fn later_snapshot_becomes_changes() {
        let mut state = FoldedWatch::default();
        let first = [instance("a", 1), instance("b", 2), instance("c", 3)];
        state.fold(snapshot(3, &first, true));
        let second = [instance("b", 2), instance("c", 5), instance("d", 6)];
        let events = state.fold(snapshot(7, &second, true));
        assert_eq!(lines(&events), ["REMOVED a 7", "UPDATED c 5", "ADDED d 6"]);
    }

    #[test]
    fn incomplete_snapshot_leaves_no_trace() {
        let mut state = FoldedWatch::default();
        state.fold(snapshot(1, &[instance("a", 1)], false));
        state.disconnected();
        let events = state.fold(snapshot(2, &[instance("b", 2)], true));
        assert_eq!(lines(&events), ["PRESENT b 2"]);
    }

    #[test]
    fn idle_message_moves_only_the_cursor() {
        let mut state = FoldedWatch::default();
        state.fold(snapshot(1, &[], true));
        assert!(state.fold(message(8, watch_response::Event::Idle(Idle {}))).is_empty());
        assert_eq!(state.cursor().unwrap().revision, 8);
    }
}
