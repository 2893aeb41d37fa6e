//! Updates and removals, by lease and by name.

use std::collections::BTreeMap;

use tonic::Code;
use waypost_client::proto::{ChangeKind, ChangeReason, Instance, Status};
use waypost_testing::{
    registry::{instance, instance_in, register, resolve_all, revision, watch_of},
    watch::Follower,
};

use super::{by_lease, by_name, update, update_named, weighing};
use crate::support::TestServer;

#[tokio::test]
async fn update_changes_only_the_fields_of_its_mask() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let entry = |key: &str| (key.to_owned(), key.to_owned());
    let before = Instance {
        weight: Some(5),
        metadata: BTreeMap::from([entry("old"), entry("both")]),
        ..instance_in("orders", "a", "eu-1", "1")
    };
    let lease = register(&mut registry, before).await.lease_id;
    let all = Instance {
        status: Status::Draining.into(),
        weight: Some(9),
        metadata: BTreeMap::from([entry("both"), entry("new")]),
        // Not in any mask, so not even looked at.
        host: "not a host".into(),
        port: 0,
        ..instance_in("other", "", "eu-2", "2")
    };
    let mut expected = resolve_all(&mut server.discovery(), "orders").await.instances.remove(0);
    for path in ["status", "weight", "metadata", "version", "zone"] {
        let answer = registry.update(update(lease, &[path], all.clone())).await.expect("updated");
        let answer = answer.into_inner();
        match path {
            "status" => expected.status = all.status,
            "weight" => expected.weight = all.weight,
            "metadata" => expected.metadata = all.metadata.clone(),
            "version" => expected.version = all.version.clone(),
            _ => expected.zone = all.zone.clone(),
        }
        expected.modified_revision += 1;
        assert_eq!(answer.instance.as_ref(), Some(&expected), "{path}");
        assert_eq!(revision(answer.cursor.as_ref()), expected.modified_revision);
        let read = resolve_all(&mut server.discovery(), "orders").await;
        assert_eq!(read.instances, [expected.clone()], "a read after the answer sees it");
    }
    // All at once, and back to what is left open.
    let paths = ["zone", "version", "metadata", "weight"];
    let answer = registry.update(update(lease, &paths, Instance::default())).await.expect("taken");
    let made = answer.into_inner().instance.expect("an instance");
    assert_eq!((made.zone.as_str(), made.version.as_str(), made.weight), ("", "", Some(100)));
    assert!(made.metadata.is_empty());
    assert_eq!(made.modified_revision, 7, "one update is one change");
}

#[tokio::test]
async fn operator_updates_by_name() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    register(&mut registry, instance("orders", "a")).await;
    let draining = Instance { status: Status::Draining.into(), ..Instance::default() };
    let request = update_named("orders", "a", &["status"], draining);
    let answer = registry.update(request).await.expect("updated").into_inner();
    assert_eq!(answer.instance.expect("an instance").status(), Status::Draining);
}

#[tokio::test]
async fn update_without_a_difference_takes_no_revision_and_wakes_no_watcher() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let before = register(&mut registry, instance_in("orders", "a", "eu-1", "1")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let same = instance_in("orders", "a", "eu-1", "1");
    let paths = ["zone", "version", "weight", "metadata"];
    for request in
        [update(before.lease_id, &paths, same.clone()), update_named("orders", "a", &paths, same)]
    {
        let answer = registry.update(request).await.expect("taken").into_inner();
        assert_eq!(answer.instance, before.instance);
        assert_eq!(answer.cursor, before.cursor);
    }
    let marker = register(&mut registry, instance("orders", "marker")).await;
    assert_eq!(follower.next_change().await.instance, marker.instance);
    assert_eq!(revision(marker.cursor.as_ref()), 2);
}

#[tokio::test]
async fn unknown_instances_are_not_found() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let lease = register(&mut registry, instance("orders", "a")).await.lease_id;
    registry.deregister(by_lease(lease)).await.expect("gone");
    let never = 12_345;
    for lease in [lease, never] {
        let request = update(lease, &["weight"], weighing(1));
        let refused = registry.update(request).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        let refused = registry.deregister(by_lease(lease)).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    for (service, id) in [("orders", "a"), ("orders", "b"), ("nothing", "a")] {
        let request = update_named(service, id, &["weight"], weighing(1));
        let refused = registry.update(request).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        let refused = registry.deregister(by_name(service, id)).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    assert_eq!(server.status().await.revision, 2, "refusals take no revision");
}

#[tokio::test]
async fn removal_has_the_reason_of_its_cause() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let own = register(&mut registry, instance("orders", "own")).await;
    register(&mut registry, instance("orders", "evicted")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let answer = registry.deregister(by_lease(own.lease_id)).await.expect("gone").into_inner();
    assert_eq!(revision(answer.cursor.as_ref()), 3);
    registry.deregister(by_name("orders", "evicted")).await.expect("gone");
    let changes = follower.next_changes(2).await;
    let seen: Vec<_> = changes.iter().map(|change| (change.kind(), change.reason())).collect();
    assert_eq!(
        seen,
        [
            (ChangeKind::Removed, ChangeReason::Deregistered),
            (ChangeKind::Removed, ChangeReason::Evicted)
        ]
    );
    let last_known = Instance { modified_revision: 3, ..own.instance.expect("an instance") };
    assert_eq!(changes[0].instance, Some(last_known));
    assert!(follower.state.is_empty());
    assert!(resolve_all(&mut server.discovery(), "orders").await.instances.is_empty());
}
