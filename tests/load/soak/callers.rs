//! Valid callers: every request gets the right response.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;
use waypost_client::proto::{
    ChangeKind, DeregisterRequest, HeartbeatRequest, Instance, RegisterRequest, ResolveRequest,
    UpdateRequest, discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::{
    registry::{connect, instance, millis, watch_of},
    wait::soon,
    watch::Follower,
};

use super::Soak;

const PAUSE: Duration = Duration::from_millis(5);

/// Registers, renews, looks up, follows, changes and deregisters an instance, again and again. A
/// request that fails ends the test.
pub(super) async fn call(soak: Arc<Soak>, number: usize) {
    let channel = connect(soak.address).await;
    let mut registry = RegistryClient::new(channel.clone());
    let mut discovery = DiscoveryClient::new(channel);
    let service = format!("good-{number}");
    let mut follower = Follower::ready(&mut discovery, watch_of(&[&service])).await;
    for round in 0_u32.. {
        let request = RegisterRequest {
            instance: Some(instance(&service, "it")),
            ttl: Some(millis(60_000)),
            disconnect_grace: None,
        };
        let registered = soon("a registration", registry.register(request)).await;
        let lease_id = registered.expect("registered").into_inner().lease_id;
        assert_eq!(follower.next_change().await.kind(), ChangeKind::Added);

        let heartbeat = HeartbeatRequest { lease_ids: vec![lease_id] };
        let renewed = soon("a heartbeat", registry.heartbeat(heartbeat)).await.expect("renewed");
        assert!(renewed.into_inner().unknown_lease_ids.is_empty(), "the lease is active");

        let update = UpdateRequest {
            lease_id,
            instance: Some(Instance { weight: Some(round), ..Instance::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] }),
            ..UpdateRequest::default()
        };
        soon("an update", registry.update(update)).await.expect("updated");
        if round != 100 {
            assert_eq!(follower.next_change().await.kind(), ChangeKind::Updated);
        }

        let request = ResolveRequest { service: service.clone(), ..ResolveRequest::default() };
        let found = soon("a lookup", discovery.resolve(request)).await.expect("resolved");
        let weights: Vec<_> = found.into_inner().instances.iter().map(|one| one.weight).collect();
        assert_eq!(weights, [Some(round)]);

        let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        soon("a deregistration", registry.deregister(request)).await.expect("deregistered");
        assert_eq!(follower.next_change().await.kind(), ChangeKind::Removed);
        // Kept for the checks of a follower, and not for a soak of hours.
        follower.changes.clear();
        soak.good.fetch_add(5, Ordering::Relaxed);
        if !soak.goes_on() {
            return;
        }
        sleep(PAUSE).await;
    }
}
