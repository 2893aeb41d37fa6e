//! Registrations and updates.

use tonic::Code;
use waypost_client::proto::{DeregisterRequest, Instance, RegisterRequest, Status, UpdateRequest};

use super::{FoldedWatch, Subject, invalid_fields, order, orders_of, register, registry};

/// Fields that a registration leaves out get their documented defaults.
pub async fn registration_is_completed_with_defaults(subject: &impl Subject) {
    let response = register(subject, order("", "")).await;
    let instance = response.instance.expect("an instance");
    assert_eq!((instance.namespace.as_str(), instance.status()), ("default", Status::Up));
    assert_eq!(instance.weight, Some(100));
    assert!(!instance.id.is_empty() && instance.registered_at.is_some());
    assert_eq!(instance.created_revision, instance.modified_revision);
    assert_eq!(response.cursor.expect("a cursor").revision, instance.created_revision);
    assert_eq!(response.ttl.expect("a TTL").seconds, 15);
    assert_eq!(response.heartbeat_interval.expect("an interval").seconds, 5);
}

/// The identity goes to the later registration, and watchers see an update.
pub async fn second_registration_takes_the_identity_over(subject: &impl Subject) {
    let first = register(subject, order("takeover", "a")).await;
    let mut watch = FoldedWatch::open(subject, orders_of("takeover")).await;
    assert_eq!(watch.snapshot().await, ["a"]);
    let second = register(subject, Instance { port: 81, ..order("takeover", "a") }).await;
    assert_ne!(first.lease_id, second.lease_id);
    assert_eq!(watch.next_changes().await, [("UPDATED", "REPLACED", "a".to_owned())]);
    let (first, second) = (first.instance.expect("one"), second.instance.expect("one"));
    assert_eq!(first.created_revision, second.created_revision);
    assert!(second.modified_revision > first.modified_revision);
}

/// A registration like the one before fences its lease and changes nothing that watchers see.
pub async fn takeover_without_a_difference_is_no_change(subject: &impl Subject) {
    let first = register(subject, order("same", "a")).await;
    let second = register(subject, order("same", "a")).await;
    assert_ne!(first.lease_id, second.lease_id);
    assert_eq!(first.instance, second.instance);
}

/// `INVALID_ARGUMENT` lists all invalid fields at once.
pub async fn every_invalid_field_of_a_registration_is_named(subject: &impl Subject) {
    let instance = Instance {
        namespace: "-".into(),
        service: " ".into(),
        id: "\n".into(),
        host: "0.0.0.0".into(),
        port: 65_536,
        status: Status::Suspect.into(),
        zone: "!".into(),
        version: "\u{7f}".into(),
        ..Instance::default()
    };
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let request = RegisterRequest {
        instance: Some(instance),
        ttl: seconds(0),
        disconnect_grace: seconds(-1),
    };
    let refused = registry(subject).register(request).await.expect_err("invalid");
    let mut expected: Vec<_> =
        ["namespace", "service", "id", "host", "port", "status", "zone", "version"]
            .map(|field| format!("instance.{field}"))
            .into();
    expected.extend(["ttl".to_owned(), "disconnect_grace".to_owned()]);
    expected.sort();
    let mut fields = invalid_fields(&refused);
    fields.sort();
    assert_eq!(fields, expected);
}

fn update(namespace: &str, id: &str, instance: Instance, paths: &[&str]) -> UpdateRequest {
    UpdateRequest {
        namespace: namespace.into(),
        service: "orders".into(),
        id: id.into(),
        instance: Some(instance),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        ..UpdateRequest::default()
    }
}

/// Fields outside of the mask stay.
pub async fn update_changes_the_fields_of_its_mask(subject: &impl Subject) {
    let before = register(subject, order("mask", "a")).await.instance.expect("one");
    let wanted = Instance {
        weight: Some(7),
        zone: "b".into(),
        version: "2".into(),
        status: Status::Draining.into(),
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        ..Instance::default()
    };
    let request = update("mask", "a", wanted.clone(), &["weight", "zone"]);
    let response = registry(subject).update(request).await.expect("valid").into_inner();
    let after = response.instance.expect("one");
    assert_eq!(response.cursor.expect("a cursor").revision, after.modified_revision);
    let modified_revision = after.modified_revision;
    assert!(modified_revision > before.modified_revision);
    let expected = Instance { weight: Some(7), zone: "b".into(), modified_revision, ..before };
    assert_eq!(after, expected);

    let request = update("mask", "a", wanted.clone(), &["status", "version", "metadata"]);
    let after = registry(subject).update(request).await.expect("valid").into_inner();
    let after = after.instance.expect("one");
    let Instance { status, version, metadata, .. } = wanted;
    let modified_revision = after.modified_revision;
    assert_eq!(after, Instance { status, version, metadata, modified_revision, ..expected });
}

/// Revisions count changes, not requests.
pub async fn update_without_a_difference_takes_no_revision(subject: &impl Subject) {
    let before = register(subject, order("equal", "a")).await.instance.expect("one");
    let same = Instance { weight: Some(100), ..Instance::default() };
    let request = update("equal", "a", same, &["weight"]);
    let after = registry(subject).update(request).await.expect("valid").into_inner();
    assert_eq!(after.instance, Some(before));
}

/// Masks must name known fields.
pub async fn invalid_masks_are_refused(subject: &impl Subject) {
    register(subject, order("masks", "a")).await;
    for (paths, field) in
        [(&[][..], "update_mask"), (&["zone", "host"][..], "update_mask.paths[1]")]
    {
        let request = update("masks", "a", Instance::default(), paths);
        let refused = registry(subject).update(request).await.expect_err("invalid");
        assert_eq!(invalid_fields(&refused), [field]);
    }
}

/// Operators name an instance by its identity; removing it then is an eviction.
pub async fn identities_are_targets_as_leases_are(subject: &impl Subject) {
    let lease_id = register(subject, order("targets", "a")).await.lease_id;
    register(subject, order("targets", "b")).await;
    let mut watch = FoldedWatch::open(subject, orders_of("targets")).await;
    assert_eq!(watch.snapshot().await, ["a", "b"]);
    let by_lease = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
    let by_identity = |id: &str| DeregisterRequest {
        namespace: "targets".into(),
        service: "orders".into(),
        id: id.into(),
        ..DeregisterRequest::default()
    };
    let mut registry = registry(subject);
    registry.deregister(by_lease.clone()).await.expect("valid");
    assert_eq!(watch.next_changes().await, [("REMOVED", "DEREGISTERED", "a".to_owned())]);
    registry.deregister(by_identity("b")).await.expect("valid");
    assert_eq!(watch.next_changes().await, [("REMOVED", "EVICTED", "b".to_owned())]);
    for request in [by_lease, by_identity("b")] {
        let refused = registry.deregister(request).await.expect_err("gone");
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    }
}
