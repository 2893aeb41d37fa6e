//! Limits: what is just within one is accepted, what exceeds one is refused.

use std::collections::BTreeMap;

use prost::Message;
use tonic::Code;
use waypost::model::Limits;
use waypost_client::proto::{
    DeregisterRequest, HeartbeatRequest, Instance, RegisterRequest, WatchRequest,
};
use waypost_testing::{
    http2::{RawClient, framed},
    registry::{bad_fields, instance, register, register_request, resolve_all_in, watch_of},
    wait::soon,
};

use super::{
    cases::{
        HEARTBEAT, KEEP_ALIVE, MESSAGE_MAX, REGISTER, SECRET, entries, metadata_of, padded,
        registering,
    },
    quota_subjects,
};
use crate::support::TestServer;

/// Returns registrations that are just within one limit each.
fn largest_registrations() -> Vec<(&'static str, RegisterRequest)> {
    let name = format!("a{}z", ".-_".repeat(42));
    assert_eq!(name.len(), 128);
    let host = format!("{}example", "a.".repeat(123));
    assert_eq!(host.len(), 253);
    let key = "k".repeat(128);
    vec![
        ("service", registering(|one| one.service = name.clone())),
        ("namespace", registering(|one| one.namespace = name.clone())),
        ("zone", registering(|one| one.zone = name.clone())),
        ("version", registering(|one| one.version = "ä".repeat(64))),
        ("id", registering(|one| one.id = "ä".repeat(128))),
        ("id that climbs", registering(|one| one.id = "../../etc/passwd".into())),
        ("id that looks escaped", registering(|one| one.id = "\\ud83d\\u0000%00".into())),
        ("id of one space", registering(|one| one.id = " ".into())),
        ("host", registering(|one| one.host = host.clone())),
        ("host of IPv6", registering(|one| one.host = "::ffff:10.0.0.1".into())),
        ("host of digits", registering(|one| one.host = "502938475610".into())),
        ("host of few digits", registering(|one| one.host = "4711".into())),
        ("host with digits first", registering(|one| one.host = "12.example".into())),
        ("port 1", registering(|one| one.port = 1)),
        ("port 65535", registering(|one| one.port = 65_535)),
        (
            "ports",
            registering(|one| {
                one.ports = (1..=64).map(|port| (format!("port-{port}"), port)).collect();
            }),
        ),
        ("weight", registering(|one| one.weight = Some(u32::MAX))),
        ("entries", registering(|one| one.metadata = entries(64, SECRET))),
        ("all metadata", registering(|one| one.metadata = metadata_of(16 * 1024))),
        ("key", registering(|one| one.metadata = BTreeMap::from([(key.clone(), "".into())]))),
        (
            "value",
            registering(|one| {
                one.metadata = BTreeMap::from([("k".to_owned(), "\0".repeat(4096))]);
            }),
        ),
    ]
}

#[tokio::test]
async fn largest_fields_are_accepted() {
    let server = TestServer::start().await;
    let mut client = RawClient::connect(server.address()).await;
    for (what, request) in largest_registrations() {
        let answer = client.grpc(REGISTER, framed(&request.encode_to_vec())).await;
        assert_eq!(answer.status().code(), Code::Ok, "{what}: {:?}", answer.status());
        let said = request.instance.expect("an instance");
        let namespace = said.namespace.clone();
        let read = resolve_all_in(&mut server.discovery(), &namespace, &said.service).await;
        let held = read.instances.into_iter().find(|held| held.id == said.id).expect("it is there");
        let expected = Instance {
            namespace: held.namespace.clone(),
            status: held.status,
            weight: held.weight,
            created_revision: held.created_revision,
            modified_revision: held.modified_revision,
            registered_at: held.registered_at,
            ..said
        };
        assert_eq!(held, expected, "{what} is kept as it was said");
    }
}

#[tokio::test]
async fn largest_lists_and_messages_are_accepted() {
    let server = TestServer::start().await;
    let mut client = RawClient::connect(server.address()).await;
    let leases = HeartbeatRequest { lease_ids: (1..=65_536).collect() };
    let answer = server.registry().heartbeat(leases).await.expect("65,536 leases");
    assert_eq!(answer.into_inner().unknown_lease_ids.len(), 65_536);
    for (path, message) in [
        (REGISTER, registering(|_| {}).encode_to_vec()),
        (HEARTBEAT, Vec::new()),
        (KEEP_ALIVE, Vec::new()),
    ] {
        let answer = client.grpc(path, framed(&padded(&message, MESSAGE_MAX))).await;
        assert_eq!(answer.status().code(), Code::Ok, "{path}: {:?}", answer.status());
    }
    let services = (0..1024).map(|number| format!("service-{number}")).collect();
    let request = WatchRequest { services, ..WatchRequest::default() };
    let opened = soon("a watch", server.discovery().watch(request)).await.expect("1024 services");
    let first = soon("a snapshot", opened.into_inner().message()).await.expect("a message");
    assert!(first.is_some());
}

#[tokio::test]
async fn full_registry_refuses_new_instances_and_serves_the_others() {
    let limits = Limits { instances_max: 10, ..Limits::default() };
    let server = TestServer::start_with(limits).await;
    let mut registry = server.registry();
    for id in 0..10 {
        register(&mut registry, instance("orders", &id.to_string())).await;
    }
    for id in ["10", "11", ""] {
        let request = register_request(instance("orders", id));
        let refused = registry.register(request).await.expect_err("full");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(quota_subjects(&refused), ["instances"]);
    }
    assert_eq!(server.status().await.revision, 10);
    // Registered instances may register again, change and be removed; then one fits.
    let taken = register(&mut registry, Instance { port: 1, ..instance("orders", "7") }).await;
    let request = DeregisterRequest { lease_id: taken.lease_id, ..DeregisterRequest::default() };
    registry.deregister(request).await.expect("gone");
    register(&mut registry, instance("orders", "10")).await;
    let request = register_request(instance("orders", "7"));
    let refused = registry.register(request).await.expect_err("full");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(server.status().await.instances, 10);
}

#[tokio::test]
async fn configured_limits_are_enforced() {
    let limits = Limits {
        name_bytes_max: 5,
        id_bytes_max: 4,
        host_bytes_max: 7,
        ports_max: 1,
        metadata_entries_max: 1,
        metadata_value_bytes_max: 3,
        heartbeat_leases_max: 2,
        watch_services_max: 1,
        filter_entries_max: 1,
        message_bytes_max: 256,
        ..Limits::default()
    };
    let server = TestServer::start_with(limits).await;
    let small = Instance {
        host: "1.1.1.1".into(),
        ports: BTreeMap::from([("abcde".to_owned(), 1)]),
        metadata: BTreeMap::from([("key".to_owned(), "abc".to_owned())]),
        ..instance("abcde", "abcd")
    };
    let mut registry = server.registry();
    registry.register(register_request(small.clone())).await.expect("just within");
    let large = Instance {
        service: "abcdef".into(),
        id: "abcde".into(),
        host: "1.1.1.10".into(),
        ..small.clone()
    };
    let refused = registry.register(register_request(large)).await.expect_err("too long");
    assert_eq!(refused.code(), Code::InvalidArgument, "the form of a text");
    assert_eq!(bad_fields(&refused), ["instance.service", "instance.id", "instance.host"]);
    let mut more = small;
    more.ports.insert("b".into(), 2);
    more.metadata.insert("key".into(), "abcd".into());
    let refused = registry.register(register_request(more)).await.expect_err("too much");
    assert_eq!(refused.code(), Code::ResourceExhausted, "how much");
    assert_eq!(quota_subjects(&refused), ["instance.ports", "instance.metadata[\"key\"]"]);
    let leases = |count| HeartbeatRequest { lease_ids: vec![1; count] };
    registry.heartbeat(leases(2)).await.expect("just within");
    let refused = registry.heartbeat(leases(3)).await.expect_err("too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let refused = registry.heartbeat(leases(33)).await.expect_err("too large a message");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(quota_subjects(&refused), ["message"]);
    let watch = watch_of(&["a", "b"]);
    let refused = server.discovery().watch(watch).await.expect_err("too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
