//! The status of the server, and backups of a store that has none.

use std::time::SystemTime;

use tonic::Code;
use waypost_client::proto::BackupRequest;
use waypost_testing::{
    registry::{instance, register, watch_of},
    wait::soon,
    watch::Follower,
};

use super::by_name;
use crate::support::TestServer;

#[tokio::test]
async fn status_counts_instances_services_leases_and_watchers() {
    let before = SystemTime::now();
    let server = TestServer::start().await;
    let empty = server.status().await;
    assert_eq!((empty.revision, empty.instances, empty.services, empty.leases), (0, 0, 0, 0));
    assert_eq!(empty.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(empty.store, "memory");
    assert!(empty.protection.is_empty());
    let started_at = SystemTime::try_from(empty.started_at.expect("a time")).expect("valid");
    let apart =
        started_at.duration_since(before).unwrap_or_else(|error| error.duration()).as_secs();
    assert!(apart < 60, "started {apart} s apart from now");

    let mut registry = server.registry();
    for (service, id) in [("orders", "a"), ("orders", "b"), ("carts", "a")] {
        register(&mut registry, instance(service, id)).await;
    }
    let follower = Follower::ready(&mut server.discovery(), watch_of(&[])).await;
    let status = server.status().await;
    assert_eq!((status.revision, status.instances, status.services), (3, 3, 2));
    assert_eq!((status.leases, status.watchers), (3, 1));
    assert_eq!(status.history_id, empty.history_id);
    drop(follower);
    registry.deregister(by_name("carts", "a")).await.expect("gone");
    // The end of a watch has to travel, so it is waited for.
    let gone = async {
        while server.status().await.watchers != 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the watch's end", gone).await;
    let status = server.status().await;
    assert_eq!((status.revision, status.instances, status.services, status.leases), (4, 2, 1, 2));
}

#[tokio::test]
async fn each_memory_registry_has_its_own_history() {
    let (first, second) = (TestServer::start().await, TestServer::start().await);
    assert_ne!(first.status().await.history_id, second.status().await.history_id);
}

#[tokio::test]
async fn memory_store_has_no_backup() {
    let server = TestServer::start().await;
    let refused = server.admin().backup(BackupRequest {}).await.expect_err("nothing to back up");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}
