//! Input of hostile or broken peers: bad requests, limits, wrong protocols, garbage.

mod cases;
mod connections;
mod handshakes;
mod limits;
mod mutations;
mod refusals;
use tonic::Status;
use tonic_types::StatusExt;
use waypost_client::proto::Instance;
use waypost_testing::registry::{instance, register, resolve_all};

use self::cases::entries;
use crate::support::TestServer;

fn quota_subjects(status: &Status) -> Vec<String> {
    let violations = status.get_details_quota_failure().map(|failure| failure.violations);
    violations.unwrap_or_default().into_iter().map(|violation| violation.subject).collect()
}

/// A server with something to lose, and the lease of one of its instances.
async fn populated() -> (TestServer, u64, Vec<Instance>) {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let mut lease = 0;
    for id in 0..5 {
        let kept = Instance { metadata: entries(2, "kept"), ..instance("kept", &id.to_string()) };
        lease = register(&mut registry, kept).await.lease_id;
    }
    let kept = resolve_all(&mut server.discovery(), "kept").await.instances;
    assert_eq!(kept.len(), 5);
    (server, lease, kept)
}

/// Everything is as it was, and works.
async fn unharmed(server: &TestServer, kept: &[Instance]) {
    let there = resolve_all(&mut server.discovery(), "kept").await.instances;
    assert_eq!(there, kept);
    let added = register(&mut server.registry(), instance("works", "")).await;
    let found = resolve_all(&mut server.discovery(), "works").await;
    assert!(found.instances.contains(&added.instance.expect("an instance")));
}
