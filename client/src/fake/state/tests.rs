//! The state beyond the registry's contract, which the conformance suite covers: the commands of a
//! test, and the loss of data.

use super::*;
use crate::proto::{
    ChangeKind, ChangeReason, Instance, RegisterRequest, WatchRequest, WatchResponse,
};

const WALL: WallTime = WallTime(7);

fn order(id: &str) -> RegisterRequest {
    let (service, host) = ("orders".into(), "10.0.0.1".into());
    let instance = Instance { service, host, id: id.into(), port: 80, ..Instance::default() };
    RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
}

fn watch(state: &FakeState, position: &mut Option<proto::Cursor>) -> Vec<WatchResponse> {
    let subjects = state.subjects(&WatchRequest::default()).unwrap();
    state.messages(&subjects, position)
}

fn changes(messages: &[WatchResponse]) -> Vec<(ChangeKind, ChangeReason, u64)> {
    let changes = messages.iter().flat_map(|message| match &message.event {
        Some(Event::Changes(changes)) => changes.changes.as_slice(),
        event => unreachable!("{event:?}"),
    });
    changes.map(|change| (change.kind(), change.reason(), change.revision)).collect()
}

fn snapshot_parts(messages: &[WatchResponse]) -> Vec<(usize, bool)> {
    let part = |message: &WatchResponse| match &message.event {
        Some(Event::Snapshot(part)) => (part.instances.len(), part.last),
        event => unreachable!("{event:?}"),
    };
    messages.iter().map(part).collect()
}

#[test]
fn leaving_and_expiring_differ_by_their_reason() {
    let mut state = FakeState::new(0);
    let lease = state.register(&order("a"), WALL).unwrap().lease_id;
    state.register(&order("b"), WALL).unwrap();
    let mut position = Some(state.cursor());
    let left = state.leave("", "orders", "a", WALL).unwrap();
    assert_eq!((left.id.as_str(), left.modified_revision), ("a", 3));
    assert_eq!(state.expire("", "orders", "b", WALL).unwrap().modified_revision, 4);
    let removed = ChangeKind::Removed;
    assert_eq!(
        changes(&watch(&state, &mut position)),
        [(removed, ChangeReason::Deregistered, 3), (removed, ChangeReason::Expired, 4)]
    );
    assert_eq!(state.renew(&[lease]), [lease]);
    assert!(state.leave("", "orders", "a", WALL).is_none());
    assert!(state.expire("shop", "orders", "b", WALL).is_none());
}

#[test]
fn any_number_of_leases_can_expire() {
    let mut state = FakeState::new(0);
    for number in 0..40 {
        state.register(&order(&number.to_string()), WALL).unwrap();
    }
    for number in 0..40 {
        assert!(state.expire("", "orders", &number.to_string(), WALL).is_some());
    }
    assert!(state.instances("", "orders").is_empty());
}

#[test]
fn generated_ids_differ_and_repeat_in_another_registry() {
    let ids = || {
        let mut state = FakeState::new(0);
        let mut id = || state.register(&order(""), WALL).unwrap().instance.unwrap().id;
        [id(), id()]
    };
    let [first, second] = ids();
    assert!(first < second);
    assert_eq!([first, second], ids());
}

#[test]
fn a_large_snapshot_has_parts_and_an_empty_one_has_one() {
    let mut state = FakeState::new(0);
    assert_eq!(snapshot_parts(&watch(&state, &mut None)), [(0, true)]);
    for index in 0..=PART_MAX {
        state.register(&order(&format!("{index:04}")), WALL).unwrap();
    }
    let parts = snapshot_parts(&watch(&state, &mut None));
    assert_eq!(parts, [(PART_MAX, false), (1, true)]);
}

#[test]
fn lost_data_starts_a_new_history_in_which_old_leases_are_unknown() {
    let mut state = FakeState::new(0);
    let lease = state.register(&order("a"), WALL).unwrap().lease_id;
    let before = state.cursor();
    state.forget();
    assert_eq!(state.renew(&[lease]), [lease]);
    assert_ne!(state.cursor().history_id, before.history_id);
    assert_eq!(snapshot_parts(&watch(&state, &mut Some(before))), [(0, true)]);
    assert_ne!(state.register(&order("a"), WALL).unwrap().lease_id, lease);
}
