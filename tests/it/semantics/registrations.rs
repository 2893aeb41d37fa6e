//! Registrations: defaults, TTL and grace, and registrations that replace another.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use tonic::Code;
use waypost_client::proto::{
    ChangeKind, ChangeReason, HeartbeatRequest, Instance, RegisterRequest, Status,
};
use waypost_testing::{
    registry::{
        bad_fields, instance, instance_in, millis, register, register_request, resolve_all,
        resolve_all_in, revision, watch_of,
    },
    watch::Follower,
};

use super::{by_lease, seconds};
use crate::support::TestServer;

#[tokio::test]
async fn server_fills_in_defaults_of_a_registration() {
    let server = TestServer::start().await;
    let before = SystemTime::now();
    let request = register_request(instance("orders", ""));
    let answer = server.registry().register(request).await.expect("taken").into_inner();
    let made = answer.instance.expect("an instance");
    assert_eq!(made.namespace, "default");
    assert_eq!(made.weight, Some(100));
    assert_eq!(made.status(), Status::Up);
    assert_eq!((made.created_revision, made.modified_revision), (1, 1));
    assert_eq!(uuid::Uuid::parse_str(&made.id).expect("a UUID").get_version_num(), 7);
    let registered_at = SystemTime::try_from(made.registered_at.expect("a time")).expect("valid");
    let apart =
        registered_at.duration_since(before).unwrap_or_else(|error| error.duration()).as_secs();
    assert!(apart < 60, "registered {apart} s apart from now");
    assert_ne!(answer.lease_id, 0);
    assert!((seconds(answer.ttl) - 15.0).abs() < 1e-9);
    assert!((seconds(answer.heartbeat_interval) - 5.0).abs() < 1e-9);
    let cursor = answer.cursor.expect("a cursor");
    assert_eq!(cursor.revision, 1);
    assert_eq!(cursor.history_id, server.status().await.history_id);
    server.stop().await;
}

#[tokio::test]
async fn registered_fields_are_read_back_unchanged() {
    let server = TestServer::start().await;
    let said = Instance {
        namespace: "prod.eu".into(),
        host: "2001:db8::1".into(),
        port: 65_535,
        ports: BTreeMap::from([("metrics".to_owned(), 1), ("admin".to_owned(), 65_535)]),
        status: Status::Starting.into(),
        weight: Some(0),
        metadata: BTreeMap::from([("team".to_owned(), "käse".to_owned()), ("e".into(), "".into())]),
        // Output only: the values in a request are ignored.
        created_revision: 77,
        modified_revision: 78,
        ..instance_in("orders", "pod/7 ä😀", "eu-1a", "2.0 beta")
    };
    let answer = register(&mut server.registry(), said.clone()).await;
    let made = answer.instance.expect("an instance");
    let registered_at = made.registered_at;
    let expected = Instance { created_revision: 1, modified_revision: 1, registered_at, ..said };
    assert_eq!(made, expected);
    let read = resolve_all_in(&mut server.discovery(), "prod.eu", "orders").await;
    assert_eq!(read.instances, [expected]);
    assert!(resolve_all(&mut server.discovery(), "orders").await.instances.is_empty());
}

#[tokio::test]
async fn generated_ids_are_unique() {
    let server = TestServer::start().await;
    let mut made = BTreeSet::new();
    for _ in 0..200 {
        let answer = register(&mut server.registry(), instance("orders", "")).await;
        made.insert(answer.instance.expect("an instance").id);
    }
    assert_eq!(made.len(), 200);
}

#[tokio::test]
async fn ttl_is_accepted_only_within_its_bounds() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    for (ttl_ms, taken) in
        [(999, false), (1_000, true), (1_001, true), (300_000, true), (300_001, false), (0, false)]
    {
        let request = RegisterRequest {
            ttl: Some(millis(ttl_ms)),
            ..register_request(instance("orders", &ttl_ms.to_string()))
        };
        match registry.register(request).await {
            Ok(answer) => {
                assert!(taken, "{ttl_ms} ms is taken");
                let answer = answer.into_inner();
                let expected = f64::from(u32::try_from(ttl_ms).expect("small")) / 1000.0;
                assert!((seconds(answer.ttl) - expected).abs() < 1e-9, "{ttl_ms} ms is kept");
                let interval = seconds(answer.heartbeat_interval);
                assert!((interval - expected / 3.0).abs() < 1e-6, "{interval} for {ttl_ms} ms");
            }
            Err(status) => {
                assert!(!taken, "{ttl_ms} ms is refused: {status}");
                assert_eq!(status.code(), Code::InvalidArgument);
                assert_eq!(bad_fields(&status), ["ttl"]);
            }
        }
    }
}

#[tokio::test]
async fn grace_within_the_ttl_is_accepted() {
    let server = TestServer::start().await;
    for (ttl_ms, grace_ms) in [(1_000, 0), (1_000, 1_000), (300_000, 300_000), (2_000, 1_999)] {
        let request = RegisterRequest {
            ttl: Some(millis(ttl_ms)),
            disconnect_grace: Some(millis(grace_ms)),
            ..register_request(instance("orders", ""))
        };
        server.registry().register(request).await.expect("taken");
    }
    // The default of 3 s is more than this TTL, and no reason to refuse it.
    let request =
        RegisterRequest { ttl: Some(millis(1_000)), ..register_request(instance("orders", "")) };
    server.registry().register(request).await.expect("taken");
}

#[tokio::test]
async fn takeover_with_the_same_content_sends_no_change() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let first = register(&mut registry, instance_in("orders", "a", "eu-1", "1")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let second = register(&mut registry, instance_in("orders", "a", "eu-1", "1")).await;
    assert_eq!(second.instance, first.instance);
    assert_eq!(second.cursor, first.cursor, "it takes no revision");
    // The watcher's next message is the marker.
    let marker = register(&mut registry, instance("orders", "marker")).await;
    let change = follower.next_change().await;
    assert_eq!(change.instance, marker.instance);
    assert_eq!(change.revision, revision(first.cursor.as_ref()) + 1);
}

#[tokio::test]
async fn takeover_with_other_content_is_one_update_with_reason_replaced() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let first = register(&mut registry, instance_in("orders", "a", "eu-1", "1")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let second = register(&mut registry, instance_in("orders", "a", "eu-1", "2")).await;
    register(&mut registry, instance("orders", "marker")).await;
    let changes = follower.next_changes(2).await;
    assert_eq!(changes[0].kind(), ChangeKind::Updated);
    assert_eq!(changes[0].reason(), ChangeReason::Replaced);
    assert_eq!(changes[0].instance, second.instance);
    let (first, second) = (first.instance.expect("one"), second.instance.expect("one"));
    assert_eq!(second.created_revision, first.created_revision);
    assert_eq!(second.registered_at, first.registered_at);
    assert_eq!(second.modified_revision, 2);
    assert_eq!(changes[1].kind(), ChangeKind::Added);
}

#[tokio::test]
async fn identity_that_registers_again_is_new() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let first = register(&mut registry, instance("orders", "a")).await;
    registry.deregister(by_lease(first.lease_id)).await.expect("gone");
    let second = register(&mut registry, instance("orders", "a")).await;
    assert_ne!(first.lease_id, second.lease_id);
    assert_eq!(second.instance.expect("an instance").created_revision, 3);
    let heartbeat = HeartbeatRequest { lease_ids: vec![first.lease_id, second.lease_id] };
    let unknown = registry.heartbeat(heartbeat).await.expect("answered").into_inner();
    assert_eq!(unknown.unknown_lease_ids, [first.lease_id]);
}
