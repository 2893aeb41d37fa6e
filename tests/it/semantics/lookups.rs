//! Lookups of a service's instances, with filters, and after writes.

use std::collections::BTreeMap;

use waypost_client::proto::{Filter, Instance, ResolveRequest, Status};
use waypost_testing::registry::{
    connect, ids, instance, instance_in, register, resolve_all, revision,
};

use super::{by_lease, update, weighing};
use crate::support::TestServer;

#[tokio::test]
async fn resolve_returns_instances_in_traffic_unless_all_are_requested() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let statuses = [Status::Starting, Status::Up, Status::Draining, Status::Down];
    for status in statuses {
        let id = status.as_str_name();
        let standing = Instance { status: status.into(), ..instance("orders", id) };
        register(&mut registry, standing).await;
    }
    let request = ResolveRequest { service: "orders".into(), ..ResolveRequest::default() };
    let serving = server.discovery().resolve(request).await.expect("resolved").into_inner();
    assert_eq!(ids(&serving.instances), ["STATUS_UP"]);
    let all = resolve_all(&mut server.discovery(), "orders").await;
    let sorted = ["STATUS_DOWN", "STATUS_DRAINING", "STATUS_STARTING", "STATUS_UP"];
    assert_eq!(ids(&all.instances), sorted, "in order of their ids");
    assert_eq!(revision(all.cursor.as_ref()), 4);
}

#[tokio::test]
async fn unknown_service_has_an_empty_response() {
    let server = TestServer::start().await;
    register(&mut server.registry(), instance("orders", "a")).await;
    let answer = resolve_all(&mut server.discovery(), "nothing").await;
    assert!(answer.instances.is_empty());
    assert_eq!(revision(answer.cursor.as_ref()), 1);
}

#[tokio::test]
async fn every_condition_of_a_filter_must_match() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let metadata = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".into(), "2".into())]);
    for zone in ["", "z1", "z2"] {
        for version in ["", "v1"] {
            let id = format!("{zone}/{version}");
            let with =
                Instance { metadata: metadata.clone(), ..instance_in("s", &id, zone, version) };
            register(&mut registry, with).await;
        }
    }
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let entry = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let none = BTreeMap::new;
    for (zones, versions, metadata, expected) in [
        (texts(&[]), texts(&[]), none(), texts(&["/", "/v1", "z1/", "z1/v1", "z2/", "z2/v1"])),
        (texts(&["z1"]), texts(&[]), none(), texts(&["z1/", "z1/v1"])),
        (texts(&["z2", "z1"]), texts(&["v1"]), none(), texts(&["z1/v1", "z2/v1"])),
        (texts(&["z2", "z9"]), texts(&["v1"]), entry("a", "1"), texts(&["z2/v1"])),
        (texts(&[""]), texts(&[]), none(), texts(&["/", "/v1"])),
        (texts(&[]), texts(&[""]), metadata.clone(), texts(&["/", "z1/", "z2/"])),
        (texts(&[]), texts(&[]), entry("a", "2"), texts(&[])),
        (texts(&[]), texts(&[]), entry("c", ""), texts(&[])),
        (texts(&["z"]), texts(&[]), none(), texts(&[])),
    ] {
        let filter = Filter { zones, versions, metadata };
        let request = ResolveRequest {
            service: "s".into(),
            filter: Some(filter.clone()),
            all_statuses: true,
            ..ResolveRequest::default()
        };
        let found = server.discovery().resolve(request.clone()).await.expect("resolved");
        assert_eq!(ids(&found.into_inner().instances), expected, "{filter:?}");
        let serving = ResolveRequest { all_statuses: false, ..request };
        let found = server.discovery().resolve(serving).await.expect("resolved").into_inner();
        assert_eq!(ids(&found.instances), expected, "{filter:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_after_an_acknowledged_write_sees_it_on_any_connection() {
    let server = TestServer::start().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let mut registry = server.registry();
        let other = connect(server.address()).await;
        writers.spawn(async move {
            let mut discovery =
                waypost_client::proto::discovery_client::DiscoveryClient::new(other);
            for round in 0..100 {
                // All writers share one service.
                let id = format!("{writer}-{round}");
                let added = register(&mut registry, instance("orders", &id)).await;
                let read = resolve_all(&mut discovery, "orders").await;
                assert!(ids(&read.instances).contains(&id.as_str()), "{id} is there");
                assert!(revision(read.cursor.as_ref()) >= revision(added.cursor.as_ref()));
                let request = update(added.lease_id, &["weight"], weighing(round));
                let updated = registry.update(request).await.expect("updated").into_inner();
                let read = resolve_all(&mut discovery, "orders").await;
                assert!(read.instances.contains(&updated.instance.expect("one")), "{id} is new");
                if round % 2 == 0 {
                    registry.deregister(by_lease(added.lease_id)).await.expect("gone");
                    let read = resolve_all(&mut discovery, "orders").await;
                    assert!(!ids(&read.instances).contains(&id.as_str()), "{id} is gone");
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer finds what it wrote");
    }
    assert_eq!(server.status().await.instances, 200);
}
