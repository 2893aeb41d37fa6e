//! Stores and backups written by earlier versions, one of each format: the server reads their whole
//! content, which `expected.json` beside them describes.
//!
//! Must not be written again, since they would prove nothing: `BLESS=1 cargo test --test it golden`
//! writes a missing one of the current format.

mod making;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use prost_types::FieldMask;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tonic::transport::Channel;
use waypost_client::proto::{
    Cursor, GetStatusRequest, GetStatusResponse, HeartbeatRequest, Instance, UpdateRequest,
    WatchRequest, admin_client::AdminClient, discovery_client::DiscoveryClient,
    registry_client::RegistryClient,
};
use waypost_testing::{
    process::{RegistryProcess, output},
    registry::{connect, identity},
    wait::soon,
    watch::{Follower, apply},
};

use self::record::{Golden, change_record, instance_record};
use crate::support::waypost;

const NAMESPACES: [&str; 2] = ["default", "shop"];

/// The present format.
const FORMAT: u32 = 2;

/// The path of a format's store, made first where that is requested.
async fn format(number: u32) -> PathBuf {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let place = |number| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/format-{number}"))
    };
    MADE.get_or_init(async || {
        if env::var_os("BLESS").is_some() && !place(FORMAT).exists() {
            making::make(&place(FORMAT)).await;
        }
    })
    .await;
    place(number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_of_format_1_is_read() {
    store_is_read(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_of_format_2_is_read() {
    store_is_read(2).await;
}

async fn store_is_read(number: u32) {
    let format = format(number).await;
    let golden = Golden::read(&format.join("expected.json"));
    // From after a kill and from after an end in order.
    for store in ["killed", "stopped"] {
        eprintln!("{store}");
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("registry.redb");
        fs::copy(format.join(store).join("registry.redb"), file).expect("it can be copied");
        let mut server = serve(directory.path()).await;
        let channel = connect(server.address()).await;
        let status = status(&channel).await;
        assert_eq!((&status.history_id, status.revision), (&golden.history_id, golden.revision));
        for namespace in NAMESPACES {
            compare_watches(&channel, namespace, &golden).await;
        }
        compare(&channel, &golden).await;
        // What was written since stands behind what was there.
        server.kill().await;
        let mut check = waypost(directory.path());
        check.args(["check", "--data-dir", ".", "--output", "json"]);
        let checked = output(check).await;
        let kept: Value = serde_json::from_slice(&checked.stdout).expect("it is JSON");
        let revision = kept["revision"].as_u64().expect("a number");
        assert!(revision >= golden.revision + golden.leases.len() as u64, "{kept}");
        assert_eq!(kept["changes"], revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_format_1_is_restored() {
    backup_is_restored(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_format_2_is_restored() {
    backup_is_restored(2).await;
}

async fn backup_is_restored(number: u32) {
    let format = format(number).await;
    let golden = Golden::read(&format.join("expected.json"));
    let directory = TempDir::new().expect("a directory");
    let mut restore = waypost(directory.path());
    restore.arg("restore").arg(format.join("image")).args(["--data-dir", "data"]);
    let restored = output(restore).await;
    assert!(restored.status.success(), "{restored:?}");
    let server = serve(&directory.path().join("data")).await;
    let channel = connect(server.address()).await;
    let status = status(&channel).await;
    assert_ne!(status.history_id, golden.history_id);
    assert_eq!(status.revision, golden.revision);
    compare(&channel, &golden).await;
}

/// A server that keeps everything in a directory.
async fn serve(directory: &Path) -> RegistryProcess {
    crate::support::serve().disk(directory).start().await
}

async fn status(channel: &Channel) -> GetStatusResponse {
    let status = AdminClient::new(channel.clone()).get_status(GetStatusRequest {}).await;
    status.expect("a status").into_inner()
}

/// Resumes watches at every past position, and compares the changes that they send.
async fn compare_watches(channel: &Channel, namespace: &str, golden: &Golden) {
    let mut discovery = DiscoveryClient::new(channel.clone());
    let expected = golden.changes_in(namespace);
    let mut state = BTreeMap::new();
    let mut position = 0;
    for told in 0..expected.len() {
        let history_id = golden.history_id.clone();
        let request = WatchRequest {
            namespace: namespace.to_owned(),
            resume: Some(Cursor { history_id, revision: position }),
            ..WatchRequest::default()
        };
        let mut follower = Follower::resume(&mut discovery, request, state.clone()).await;
        let changes = follower.next_changes(expected.len() - told).await;
        assert_eq!(follower.snapshots, 0, "it goes on");
        let records: Vec<_> = changes.iter().map(change_record).collect();
        assert_eq!(records, expected[told..]);
        apply(&mut state, &changes[0]);
        position = changes[0].revision;
    }
    let instances: Vec<_> = state.values().map(instance_record).collect();
    assert_eq!(instances, golden.instances_in(namespace));
}

/// Compares instances and leases.
async fn compare(channel: &Channel, golden: &Golden) {
    for namespace in NAMESPACES {
        let instances = instances(channel, namespace).await;
        let records: Vec<_> = instances.iter().map(instance_record).collect();
        assert_eq!(records, golden.instances_in(namespace));
    }
    let mut registry = RegistryClient::new(channel.clone());
    let living = golden.leases.iter().map(|held| held.lease_id);
    let lease_ids = living.chain(golden.dead_leases.iter().copied()).collect();
    let heartbeat = registry.heartbeat(HeartbeatRequest { lease_ids }).await;
    let unknown = heartbeat.expect("an answer").into_inner().unknown_lease_ids;
    let unknown: BTreeSet<_> = unknown.into_iter().collect();
    assert_eq!(unknown, golden.dead_leases.iter().copied().collect());
    for held in &golden.leases {
        let update = UpdateRequest {
            lease_id: held.lease_id,
            instance: Some(Instance { version: "after".to_owned(), ..Instance::default() }),
            update_mask: Some(FieldMask { paths: vec!["version".to_owned()] }),
            ..UpdateRequest::default()
        };
        let updated = registry.update(update).await.expect("the lease lives").into_inner();
        assert_eq!(identity(&updated.instance.expect("an instance")), held.identity);
    }
}

/// The instances of a namespace, in order.
async fn instances(channel: &Channel, namespace: &str) -> Vec<Instance> {
    let mut discovery = DiscoveryClient::new(channel.clone());
    let request = WatchRequest { namespace: namespace.to_owned(), ..WatchRequest::default() };
    let follower = soon("a snapshot", Follower::ready(&mut discovery, request)).await;
    follower.state.into_values().collect()
}
