//! A stall of the server extends leases: instances that heartbeat stay registered.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use waypost_client::proto::{ChangeKind, ChangeReason, DeregisterRequest, HeartbeatRequest, RegisterRequest, discovery_client::DiscoveryClient, registry_client::RegistryClient};
use waypost_testing::{registry::{connect, instance, register_request, watch_of}, wait::soon, watch::Follower};

use crate::support::serve;

const TTL: Duration = Duration::from_secs(2);

async fn register(registry: &mut RegistryClient<Channel>, id: &str) -> u64 {
    let ttl = Some(TTL.try_into().expect("fits"));
    let request = RegisterRequest { ttl, ..register_request(instance("orders", id)) };
    registry.register(request).await.expect("registered").into_inner().lease_id
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_server_keeps_instances_that_heartbeat() {
    let mut server = serve().start().await;
    let mut registry = RegistryClient::new(connect(server.address()).await);
    let mut discovery = DiscoveryClient::new(connect(server.address()).await);
    let mut lives = Vec::new();
    for id in 0..20 {
        lives.push(register(&mut registry, &format!("alive {id}")).await);
    }
    register(&mut registry, "dead").await;
    let mut follower = Follower::ready(&mut discovery, watch_of(&["orders"])).await;
    assert_eq!(follower.state.len(), 21);

    let leases = lives.clone();
    let mut heartbeats = RegistryClient::new(connect(server.address()).await);
    let heartbeating = tokio::spawn(async move {
        loop {
            let request = HeartbeatRequest { lease_ids: leases.clone() };
            let answer = heartbeats.heartbeat(request).await.expect("answered").into_inner();
            assert!(answer.unknown_lease_ids.is_empty());
            sleep(TTL / 4).await;
        }
    });
    server.signal(Signal::STOP);
    sleep(3 * TTL).await;
    server.signal(Signal::CONT);

    // A silent instance keeps the rest of its TTL and then goes, alone.
    let change = follower.next_change().await;
    assert_eq!(change.instance.as_ref().expect("an instance").id, "dead");
    assert_eq!((change.kind(), change.reason()), (ChangeKind::Removed, ChangeReason::Expired));
    assert!(timeout(TTL, follower.next_change()).await.is_err(), "the others live on");
    assert!(!heartbeating.is_finished(), "no lease was unknown");
    heartbeating.abort();
    let request = DeregisterRequest { lease_id: lives[0], ..DeregisterRequest::default() };
    registry.deregister(request).await.expect("it is still there");
    let change = soon("its removal", follower.next_change()).await;
    assert_eq!(change.reason(), ChangeReason::Deregistered);
    server.signal(Signal::TERM);
    assert!(server.end().await.success());
}
