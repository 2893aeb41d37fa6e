//! Leases: fencing, heartbeats, keep-alive streams.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;
use waypost_client::proto::{HeartbeatRequest, Instance, KeepAliveRequest};
use waypost_testing::{
    registry::{instance, register, resolve_all},
    wait::soon,
};

use super::{by_lease, update, weighing};
use crate::support::TestServer;

#[tokio::test]
async fn takeover_fences_the_old_lease() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let old = register(&mut registry, instance("orders", "a")).await.lease_id;
    let new = register(&mut registry, instance("orders", "a")).await.lease_id;
    assert_ne!(old, new);

    let heartbeat = HeartbeatRequest { lease_ids: vec![old, new] };
    let unknown = registry.heartbeat(heartbeat).await.expect("answered").into_inner();
    assert_eq!(unknown.unknown_lease_ids, [old]);

    let request = update(old, &["weight"], weighing(7));
    let refused = registry.update(request).await.expect_err("fenced");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let refused = registry.deregister(by_lease(old)).await.expect_err("fenced");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.get_details_precondition_failure().is_some());

    let there = resolve_all(&mut server.discovery(), "orders").await.instances;
    assert_eq!(there[0].weight, Some(100), "the fenced lease changed nothing");
    registry.update(update(new, &["weight"], weighing(7))).await.expect("the new lease holds");
    registry.deregister(by_lease(new)).await.expect("the new lease holds");
}

#[tokio::test]
async fn each_takeover_fences_all_earlier_leases() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let mut leases = Vec::new();
    for weight in 0..20 {
        let taking = Instance { weight: Some(weight / 2), ..instance("orders", "a") };
        leases.push(register(&mut registry, taking).await.lease_id);
    }
    let last = leases.pop().expect("a lease");
    let heartbeat = HeartbeatRequest { lease_ids: leases.clone() };
    let unknown = registry.heartbeat(heartbeat).await.expect("answered").into_inner();
    assert_eq!(unknown.unknown_lease_ids, leases);
    for lease in leases {
        let refused = registry.deregister(by_lease(lease)).await.expect_err("fenced");
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    assert_eq!(server.status().await.instances, 1);
    registry.deregister(by_lease(last)).await.expect("the last lease holds");
}

#[tokio::test]
async fn heartbeat_returns_unknown_leases() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let lease = register(&mut registry, instance("orders", "a")).await.lease_id;
    let gone = register(&mut registry, instance("orders", "b")).await.lease_id;
    registry.deregister(by_lease(gone)).await.expect("gone");
    let lease_ids = vec![0, lease, 1, u64::MAX, gone, lease];
    let answer = registry.heartbeat(HeartbeatRequest { lease_ids }).await.expect("answered");
    assert_eq!(answer.into_inner().unknown_lease_ids, [0, 1, u64::MAX, gone]);
    let nothing = registry.heartbeat(HeartbeatRequest::default()).await.expect("answered");
    assert!(nothing.into_inner().unknown_lease_ids.is_empty());
}

#[tokio::test]
async fn keep_alive_responds_to_each_request_in_order() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let lease = register(&mut registry, instance("orders", "a")).await.lease_id;
    let (requests, outgoing) = mpsc::channel(64);
    let answers = registry.keep_alive(ReceiverStream::new(outgoing)).await.expect("open");
    let mut answers = answers.into_inner();
    // All at once, and no unknown lease twice: the responses identify their requests.
    for number in 1..=50 {
        let lease_ids = vec![lease, number];
        requests.send(KeepAliveRequest { lease_ids }).await.expect("sent");
    }
    for number in 1..=50 {
        let answer = soon("an answer", answers.message()).await.expect("open").expect("an answer");
        assert_eq!(answer.unknown_lease_ids, [number]);
    }
    drop(requests);
    let end = soon("the end", answers.message()).await.expect("no error");
    assert_eq!(end, None, "the stream ends with its requests");
}
