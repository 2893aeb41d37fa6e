//! A disk that has no room.

use std::collections::BTreeSet;

use fastrand::Rng;
use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use waypost_client::proto::{RegisterRequest, WatchRequest};
use waypost_testing::{
    process::RegistryProcess,
    registry::{instance, millis, register_request, resolve_all, watch_of},
    seed::seed,
    wait::soon,
    watch::Follower,
};

use super::{
    Clients, FILE, expect_refused_start, is_refusal, on,
    outage::{Outage, bulky},
    tmpfs::SmallDisk,
};

const DISK_BYTES: u64 = 24 * 1024 * 1024;
/// Kills while the disk is full, each with a little more or less room.
const ROUNDS: usize = 8;
const SPARE_BYTES_MAX: u64 = 256 * 1024;
/// Registrations in flight at a time.
const AT_ONCE: usize = 8;

#[tokio::test]
async fn full_disk_refuses_writes_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let mut server = on(&disk.data()).start().await;
    let mut outage = Outage::before(&server, Code::ResourceExhausted).await;
    disk.fill(0);
    outage.begin().await;
    let request = register_request(instance("orders", "refused"));
    let refused = outage.clients.registry.clone().register(request).await.expect_err("refused");
    let quota = refused.get_details_quota_failure().expect("what there is not enough of");
    assert_eq!(quota.violations[0].subject, "disk");
    outage.lasts(&mut server).await;
    disk.make_room();
    let cursor = outage.end(&mut server).await;

    // What was refused is not there later either.
    server.kill().await;
    let server = on(&disk.data()).start().await;
    let mut clients = Clients::of(&server).await;
    let request = WatchRequest { resume: Some(cursor.clone()), ..watch_of(&["orders"]) };
    let mut watch = Follower::open(&mut clients.discovery, request).await;
    watch.message().await;
    assert_eq!((watch.snapshots, watch.changes.len()), (0, 0), "the history goes on");
    let orders = resolve_all(&mut clients.discovery, "orders").await;
    assert_eq!((orders.instances.len(), orders.cursor), (4, Some(cursor)));
}

#[tokio::test]
async fn server_killed_on_a_full_disk_keeps_acknowledged_writes() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let mut random = Rng::with_seed(seed());
    let mut ledger = Ledger::default();
    for _ in 0..ROUNDS {
        let mut server = on(&disk.data()).start().await;
        ledger.expect_shown(&server).await;
        let clients = Clients::of(&server).await;
        ledger.write(&clients, 1).await;
        disk.fill(random.u64(..SPARE_BYTES_MAX));
        while ledger.write(&clients, AT_ONCE).await {}
        ledger.write(&clients, AT_ONCE).await;
        server.kill().await;

        // It starts without room as well, and some of it may be left.
        let mut server = on(&disk.data()).start().await;
        ledger.expect_shown(&server).await;
        ledger.write(&Clients::of(&server).await, 1).await;
        server.kill().await;
        disk.make_room();
    }
    let server = on(&disk.data()).start().await;
    ledger.expect_shown(&server).await;
    eprintln!("{} were taken, {} refused", ledger.taken.len(), ledger.refused);
    assert!(ledger.refused >= ROUNDS, "the disk was full");
}

#[tokio::test]
async fn store_without_room_to_start_starts_once_there_is_room() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    for spare in [0, 4096, 8192] {
        disk.fill(spare);
        let said = expect_refused_start(&disk.data()).await;
        assert!(said.contains(FILE) && said.contains("No space left"), "{said}");
        disk.make_room();
    }
    Ledger::default().expect_shown(&on(&disk.data()).start().await).await;
}

/// The acknowledged writes.
#[derive(Default)]
struct Ledger {
    taken: BTreeSet<String>,
    refused: usize,
}

impl Ledger {
    /// Registers some at once. Returns whether all were acknowledged.
    async fn write(&mut self, clients: &Clients, count: usize) -> bool {
        let begun = self.taken.len() + self.refused;
        let asked = (begun..begun + count).map(|number| {
            let id = format!("{number}");
            async { (register(clients, &id).await, id) }
        });
        let mut all_taken = true;
        for (answer, id) in join_all(asked).await {
            match answer {
                Ok(()) => _ = self.taken.insert(id),
                Err(status) => {
                    assert!(is_refusal(&status, Code::ResourceExhausted), "{status:?}");
                    self.refused += 1;
                    all_taken = false;
                }
            }
        }
        all_taken
    }

    /// Checks that all acknowledged writes are there, and nothing else.
    async fn expect_shown(&self, server: &RegistryProcess) {
        let mut clients = Clients::of(server).await;
        let shown = resolve_all(&mut clients.discovery, "carts").await.instances;
        let shown: BTreeSet<_> = shown.into_iter().map(|instance| instance.id).collect();
        assert_eq!(shown, self.taken);
        assert_eq!(clients.status().await.revision, self.taken.len() as u64);
    }
}

async fn register(clients: &Clients, id: &str) -> Result<(), Status> {
    let ttl = Some(millis(300_000));
    let request = RegisterRequest { ttl, ..register_request(bulky("carts", id)) };
    soon("an answer", clients.registry.clone().register(request)).await.map(drop)
}
