use tonic::Code;

use super::*;

fn order(id: &str, weight: u32) -> RegisterRequest {
    let instance = Instance {
        service: "orders".into(),
        id: id.into(),
        host: "10.0.0.1".into(),
        port: 80,
        weight: Some(weight),
        ..Instance::default()
    };
    RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
}

fn weigh(lease_id: u64, weight: u32) -> UpdateRequest {
    UpdateRequest {
        lease_id,
        instance: Some(Instance { weight: Some(weight), ..Instance::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["weight".into()] }),
        ..UpdateRequest::default()
    }
}

fn leave(lease_id: u64) -> DeregisterRequest {
    DeregisterRequest { lease_id, ..DeregisterRequest::default() }
}

fn orders() -> Scope {
    Scope::service("", "orders")
}

fn identity(id: &str) -> Identity {
    Identity::new("", "orders", id)
}

/// The kinds, reasons and revisions of the changes in an only message.
fn changes(told: &[WatchResponse]) -> Vec<(ChangeKind, ChangeReason, u64)> {
    let [WatchResponse { event: Some(Event::Changes(changes)), .. }] = told else {
        unreachable!("{told:?}")
    };
    let named = |change: &Change| (change.kind(), change.reason(), change.revision);
    changes.changes.iter().map(named).collect()
}

/// The ids in the parts of a snapshot.
fn snapshot(told: &[WatchResponse]) -> Vec<&str> {
    let (last, before) = told.split_last().unwrap();
    let part = |message: &WatchResponse| match &message.event {
        Some(Event::Snapshot(part)) => part.last,
        event => unreachable!("{event:?}"),
    };
    assert!(part(last) && !before.iter().any(part), "only the last part is the last");
    let instances = told.iter().flat_map(|message| match &message.event {
        Some(Event::Snapshot(part)) => part.instances.as_slice(),
        _ => &[],
    });
    instances.map(|instance| instance.id.as_str()).collect()
}

#[test]
fn a_registration_is_completed_and_its_heartbeats_are_a_third_of_the_ttl() {
    let mut state = State::default();
    let request = RegisterRequest {
        instance: Some(Instance {
            service: "orders".into(),
            host: "h".into(),
            port: 1,
            modified_revision: 77,
            ..Instance::default()
        }),
        ..RegisterRequest::default()
    };
    let response = state.register(request).unwrap();
    let instance = response.instance.unwrap();
    assert_eq!((instance.namespace.as_str(), instance.id.as_str()), ("default", "made-1"));
    assert_eq!((instance.status(), instance.weight), (proto::Status::Up, Some(100)));
    assert_eq!((instance.created_revision, instance.modified_revision), (1, 1));
    assert_eq!(response.ttl.unwrap().seconds, 15);
    assert_eq!(response.heartbeat_interval.unwrap().seconds, 5);
}

#[test]
fn a_take_over_fences_the_lease_before_and_is_seen_where_it_changed_something() {
    let mut state = State::default();
    let old = state.register(order("a", 100)).unwrap().lease_id;
    let mut position = None;
    assert_eq!(snapshot(&state.tell(&orders(), &mut position)), ["a"]);
    let new = state.register(order("a", 100)).unwrap().lease_id;
    assert!(state.tell(&orders(), &mut position).is_empty());
    assert_eq!(state.renew(&[old, new]), [old]);
    assert_eq!(state.update(weigh(old, 7)).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(state.deregister(&leave(old)).unwrap_err().code(), Code::FailedPrecondition);

    let last = state.register(order("a", 50)).unwrap();
    let seen = changes(&state.tell(&orders(), &mut position));
    assert_eq!(seen, [(ChangeKind::Updated, ChangeReason::Replaced, 2)]);
    let instance = last.instance.unwrap();
    assert_eq!((instance.created_revision, instance.modified_revision), (1, 2));
    state.deregister(&leave(last.lease_id)).unwrap();
    let seen = changes(&state.tell(&orders(), &mut position));
    assert_eq!(seen, [(ChangeKind::Removed, ChangeReason::Deregistered, 3)]);
}

#[test]
fn a_lease_whose_instance_is_gone_is_not_known_and_not_fenced() {
    let mut state = State::default();
    let lease = state.register(order("a", 100)).unwrap().lease_id;
    assert!(state.remove(&identity("a"), ChangeReason::Expired).is_some());
    assert_eq!(state.renew(&[lease]), [lease]);
    state.register(order("a", 100)).unwrap();
    assert_eq!(state.update(weigh(lease, 7)).unwrap_err().code(), Code::NotFound);
    assert_eq!(state.deregister(&leave(lease)).unwrap_err().code(), Code::NotFound);
}

#[test]
fn an_operator_names_the_identity() {
    let mut state = State::default();
    state.register(order("a", 100)).unwrap();
    let named = |id: &str| UpdateRequest { service: "orders".into(), id: id.into(), ..weigh(0, 7) };
    assert_eq!(state.update(named("a")).unwrap().instance.unwrap().weight, Some(7));
    assert_eq!(state.update(named("b")).unwrap_err().code(), Code::NotFound);
    let request = |id: &str| {
        let (service, id) = ("orders".into(), id.into());
        DeregisterRequest { service, id, ..DeregisterRequest::default() }
    };
    assert_eq!(state.deregister(&request("b")).unwrap_err().code(), Code::NotFound);
    state.deregister(&request("a")).unwrap();
    assert!(state.instances(&orders()).is_empty());
}

#[test]
fn an_update_that_changes_nothing_takes_no_revision() {
    let mut state = State::default();
    let lease = state.register(order("a", 100)).unwrap().lease_id;
    let response = state.update(weigh(lease, 100)).unwrap();
    assert_eq!(
        (response.cursor.unwrap().revision, response.instance.unwrap().weight),
        (1, Some(100))
    );
    let response = state.update(weigh(lease, 7)).unwrap();
    assert_eq!(response.instance.unwrap().modified_revision, 2);
}

#[test]
fn a_watch_goes_on_where_the_log_still_reaches_and_begins_anew_elsewhere() {
    let mut state = State::default();
    state.register(order("a", 100)).unwrap();
    let start = state.cursor();
    let lease = state.register(order("b", 100)).unwrap().lease_id;
    let tell = |state: &State, at: &Cursor| state.tell(&orders(), &mut Some(at.clone()));
    assert_eq!(changes(&tell(&state, &start)), [(ChangeKind::Added, ChangeReason::Unspecified, 2)]);
    assert!(tell(&state, &state.cursor()).is_empty());
    let ahead = Cursor { revision: 3, ..start.clone() };
    assert_eq!(snapshot(&tell(&state, &ahead)), ["a", "b"]);
    let other = Cursor { history_id: "other".into(), ..start };
    assert_eq!(snapshot(&tell(&state, &other)), ["a", "b"]);

    for weight in 1..LOG_MAX as u32 {
        state.update(weigh(lease, weight)).unwrap();
    }
    assert_eq!(changes(&tell(&state, &start)).len(), LOG_MAX);
    state.update(weigh(lease, 0)).unwrap();
    assert_eq!(snapshot(&tell(&state, &start)), ["a", "b"]);
}

#[test]
fn a_watch_hears_of_its_services_alone() {
    let mut state = State::default();
    state.register(order("a", 100)).unwrap();
    let mut other = order("b", 100);
    other.instance.as_mut().unwrap().service = "others".into();
    state.register(other.clone()).unwrap();
    other.instance.as_mut().unwrap().namespace = "shop".into();
    state.register(other).unwrap();
    let ids = |scope: &Scope| snapshot(&state.tell(scope, &mut None)).join(" ");
    assert_eq!(ids(&orders()), "a");
    assert_eq!(ids(&Scope::of(&WatchRequest::default())), "a b");
    assert_eq!(ids(&Scope::service("shop", "others")), "b");
    assert_eq!(ids(&Scope::service("", "unknown")), "");
    let start = Cursor { revision: 1, ..state.cursor() };
    assert!(state.tell(&orders(), &mut Some(start)).is_empty());
}

#[test]
fn a_large_snapshot_comes_in_parts() {
    let mut state = State::default();
    for index in 0..=PART_MAX {
        state.register(order(&format!("{index:04}"), 100)).unwrap();
    }
    let told = state.tell(&orders(), &mut None);
    assert_eq!((told.len(), snapshot(&told).len()), (2, PART_MAX + 1));
}

#[test]
fn what_is_forgotten_is_gone_and_no_lease_is_granted_twice() {
    let mut state = State::default();
    let lease = state.register(order("a", 100)).unwrap().lease_id;
    let before = state.cursor();
    state.forget();
    assert_eq!(state.renew(&[lease]), [lease]);
    assert_ne!(state.cursor().history_id, before.history_id);
    let told = state.tell(&orders(), &mut Some(before));
    assert!(snapshot(&told).is_empty());
    assert_ne!(state.register(order("a", 100)).unwrap().lease_id, lease);
}
