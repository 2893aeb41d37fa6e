//! A principal over its limits is refused, and nobody else.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;
use waypost_client::proto::{DeregisterRequest, HeartbeatRequest, UpdateRequest};
use waypost_testing::{
    registry::{instance, register_request, watch_of},
    wait::soon,
};

use super::tokens::TokenRegistry;
use crate::support::serve;

const RULES: &str = "[[allow]]
who = [\"token/greedy\", \"token/modest\"]
may = [\"register\", \"operate\", \"discover\"]
on = \"*/*\"
[[limit]]
who = \"token/greedy\"
writes = { per_second = 1, burst = 3 }
watches = 2
connections = 2
[[limit]]
namespace = \"shop\"
instances = 3
";

const NAMES: [&str; 2] = ["greedy", "modest"];

/// The subject of the limit that a call was over, and the delay before another.
#[track_caller]
fn limited(status: &Status) -> (String, String, Duration) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let quota = status.get_details_quota_failure().expect("whose limit").violations.remove(0);
    let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    (quota.subject, quota.description, retry.expect("a delay"))
}

#[tokio::test]
async fn writes_are_limited_for_their_principal_alone() {
    let mut server = TokenRegistry::start(RULES, &NAMES).await;
    let (mut greedy, mut modest) =
        (server.registry("greedy").await, server.registry("modest").await);
    let mut leases = Vec::new();
    for id in ["a", "b", "c"] {
        let registered = greedy.register(register_request(instance("orders", id))).await.unwrap();
        leases.push(registered.into_inner().lease_id);
    }
    // Another connection has no burst of its own.
    let mut other = server.registry("greedy").await;
    let refused = other.register(register_request(instance("orders", "d"))).await.unwrap_err();
    let (subject, limit, retry) = limited(&refused);
    assert_eq!(subject, "principal token/greedy");
    assert_eq!(limit, "1 writes a second, 3 at once");
    assert!(retry > Duration::ZERO && retry <= Duration::from_secs(1), "{retry:?}");
    assert_eq!(refused.message(), "token/greedy is over its limit of 1 writes a second, 3 at once");
    let update = UpdateRequest { lease_id: leases[0], ..UpdateRequest::default() };
    let update = UpdateRequest {
        instance: Some(instance("orders", "a")),
        update_mask: Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] }),
        ..update
    };
    limited(&greedy.update(update).await.unwrap_err());
    let by_lease = DeregisterRequest { lease_id: leases[0], ..DeregisterRequest::default() };
    limited(&greedy.deregister(by_lease).await.unwrap_err());
    // Renewals are never limited, and others are not.
    for _ in 0..50 {
        let heartbeat = HeartbeatRequest { lease_ids: leases.clone() };
        let renewed = greedy.heartbeat(heartbeat).await.unwrap().into_inner();
        assert_eq!(renewed.unknown_lease_ids, [0_u64; 0]);
        modest.register(register_request(instance("payments", "p"))).await.unwrap();
    }
    soon("room for one write", tokio::time::sleep(retry)).await;
    greedy.register(register_request(instance("orders", "d"))).await.unwrap();

    let records = server.records().await;
    let limited: Vec<_> = records.iter().filter(|one| one["outcome"] == "limited").collect();
    assert_eq!(limited.len(), 3, "{limited:?}");
    for record in limited {
        assert_eq!(record["principal"], "token/greedy");
        assert_eq!(record["code"], "RESOURCE_EXHAUSTED");
        assert_eq!((&record["reason"], &record["rule"]), (&"TOO_MANY_WRITES".into(), &1.into()));
        assert_eq!(record["service"], "orders");
    }
}

#[tokio::test]
async fn watches_and_connections_are_limited_until_one_ends() {
    let server = TokenRegistry::start(RULES, &NAMES).await;
    let mut greedy = server.discovery("greedy").await;
    let first = greedy.watch(watch_of(&["orders"])).await.unwrap();
    let second = greedy.watch(watch_of(&["orders"])).await.unwrap();
    let refused = greedy.watch(watch_of(&["orders"])).await.unwrap_err();
    assert_eq!(limited(&refused).1, "2 open watches");
    let mut modest = server.discovery("modest").await;
    let _others = modest.watch(watch_of(&["orders"])).await.unwrap();
    drop(first);
    let again = async {
        loop {
            match greedy.watch(watch_of(&["orders"])).await {
                Ok(opened) => return opened,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let again = soon("room for a watch", again).await;

    let mut other = server.discovery("greedy").await;
    limited(&other.watch(watch_of(&["orders"])).await.unwrap_err());
    let mut third = server.registry("greedy").await;
    let refused = third.heartbeat(HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!(limited(&refused).1, "2 open connections");
    drop((greedy, second, again));
    let again = async {
        while third.heartbeat(HeartbeatRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("room for a connection", again).await;
}

#[tokio::test]
async fn instances_of_a_namespace_are_counted_over_restarts() {
    let data = tempfile::tempdir().unwrap();
    let mut server = TokenRegistry::start_with(RULES, &NAMES, serve().disk(data.path())).await;
    let in_shop = |id: &str| {
        let mut instance = instance("orders", id);
        instance.namespace = "shop".to_owned();
        register_request(instance)
    };
    // Of many at once exactly three have room.
    let attempts = (0..8).map(|number| {
        let connection = server.registry("modest");
        async move { connection.await.register(in_shop(&format!("i{number}"))).await }
    });
    let registered = futures_util::future::join_all(attempts).await;
    let refused: Vec<_> = registered.iter().filter_map(|one| one.as_ref().err()).collect();
    assert_eq!(refused.len(), 5);
    for status in refused {
        let (subject, limit, _) = limited(status);
        assert_eq!(subject, "namespace shop");
        assert_eq!(limit, "namespace shop is full: it may have 3 instances");
    }
    let taken = registered.iter().position(Result::is_ok).unwrap();
    server.process.kill().await;
    server.process.start().await;
    let mut modest = server.registry("modest").await;
    limited(&modest.register(in_shop("another")).await.unwrap_err());
    // A take-over adds none, and another namespace has no limit.
    modest.register(in_shop(&format!("i{taken}"))).await.unwrap();
    modest.register(register_request(instance("orders", "a"))).await.unwrap();
    let remove = DeregisterRequest {
        namespace: "shop".to_owned(),
        service: "orders".to_owned(),
        id: format!("i{taken}"),
        ..DeregisterRequest::default()
    };
    modest.deregister(remove).await.unwrap();
    modest.register(in_shop("another")).await.unwrap();
    let records = server.records().await;
    let limited: Vec<_> = records.iter().filter(|one| one["outcome"] == "limited").collect();
    assert!(!limited.is_empty() && limited.iter().all(|one| one["reason"] == "TOO_MANY_INSTANCES"));
}
