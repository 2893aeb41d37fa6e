//! Renewal, expiry and fencing of leases.

use futures_util::stream;
use tonic::Code;
use tonic_types::StatusExt;
use waypost_client::proto::{
    DeregisterRequest, HeartbeatRequest, Instance, KeepAliveRequest, RegisterRequest,
    ResolveRequest, UpdateRequest,
};

use super::{FoldedWatch, Subject, discovery, order, orders_of, register, registry};

/// A lease that was never granted.
const UNKNOWN: u64 = 0x0fff_ffff_ffff_fff1;

/// A heartbeat renews many leases, and names those that it could not renew.
pub async fn heartbeat_returns_the_leases_that_are_not_active(subject: &impl Subject) {
    let first = register(subject, order("heartbeat", "a")).await.lease_id;
    let second = register(subject, order("heartbeat", "b")).await.lease_id;
    let mut registry = registry(subject);
    let lease_ids = vec![first, UNKNOWN, second];
    let response = registry.heartbeat(HeartbeatRequest { lease_ids }).await.expect("valid");
    assert_eq!(response.into_inner().unknown_lease_ids, [UNKNOWN]);
    let lease_id = first;
    let leave = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
    registry.deregister(leave).await.expect("valid");
    let lease_ids = vec![first, second];
    let response = registry.heartbeat(HeartbeatRequest { lease_ids }).await.expect("valid");
    assert_eq!(response.into_inner().unknown_lease_ids, [first]);
}

/// Each request on a stream gets its response.
pub async fn stream_of_heartbeats_returns_the_leases_that_are_not_active(subject: &impl Subject) {
    let lease = register(subject, order("stream", "a")).await.lease_id;
    let requests = [vec![lease], vec![UNKNOWN, lease]];
    let requests = requests.map(|lease_ids| KeepAliveRequest { lease_ids });
    let responses = registry(subject).keep_alive(stream::iter(requests)).await.expect("valid");
    let mut responses = responses.into_inner();
    let mut unknown = Vec::new();
    while let Some(response) = responses.message().await.expect("no error") {
        unknown.push(response.unknown_lease_ids);
    }
    assert_eq!(unknown, [vec![], vec![UNKNOWN]]);
}

/// An instance whose lease expires is removed with that reason, and its lease is unknown.
pub async fn expired_lease_is_unknown_and_its_instance_removed(subject: &impl Subject) {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let request = RegisterRequest {
        instance: Some(order("expiry", "a")),
        ttl: seconds(1),
        disconnect_grace: seconds(0),
    };
    let mut registry = registry(subject);
    let lease_id = registry.register(request).await.expect("valid").into_inner().lease_id;
    let mut watch = FoldedWatch::open(subject, orders_of("expiry")).await;
    assert_eq!(watch.snapshot().await, ["a"]);
    subject.expire("expiry", "orders", "a").await;
    assert_eq!(watch.next_changes().await, [("REMOVED", "EXPIRED", "a".to_owned())]);
    let heartbeat = HeartbeatRequest { lease_ids: vec![lease_id] };
    let response = registry.heartbeat(heartbeat).await.expect("valid");
    assert_eq!(response.into_inner().unknown_lease_ids, [lease_id]);
    let leave = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
    let refused = registry.deregister(leave).await.expect_err("expired");
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
}

/// After a takeover the older lease renews nothing, changes nothing and removes nothing.
pub async fn fenced_lease_changes_nothing(subject: &impl Subject) {
    let fenced = register(subject, order("fence", "a")).await.lease_id;
    let active = register(subject, order("fence", "a")).await;
    let mut registry = registry(subject);
    let heartbeat = HeartbeatRequest { lease_ids: vec![fenced, active.lease_id] };
    let response = registry.heartbeat(heartbeat).await.expect("valid");
    assert_eq!(response.into_inner().unknown_lease_ids, [fenced]);

    let update = UpdateRequest {
        lease_id: fenced,
        instance: Some(Instance { weight: Some(7), ..Instance::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["weight".into()] }),
        ..UpdateRequest::default()
    };
    let leave = DeregisterRequest { lease_id: fenced, ..DeregisterRequest::default() };
    let refused = [
        registry.update(update).await.expect_err("fenced"),
        registry.deregister(leave).await.expect_err("fenced"),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        let details = status.get_details_precondition_failure().expect("details");
        assert_eq!(details.violations[0].r#type, "FENCED");
    }
    let lookup = ResolveRequest {
        namespace: "fence".into(),
        service: "orders".into(),
        ..ResolveRequest::default()
    };
    let found = discovery(subject).resolve(lookup).await.expect("valid").into_inner();
    assert_eq!(found.instances, Vec::from_iter(active.instance));
}
