//! An outage of the store, of any cause: writes are refused, everything else is served, and the
//! registry recovers without a restart.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use prost_types::FieldMask;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{HealthCheckResponse, health_check_response::ServingStatus};
use waypost_client::proto::{
    ChangeKind, ChangeReason, Cursor, DeregisterRequest, HeartbeatRequest, Instance,
    RegisterRequest, UpdateRequest, WatchRequest,
};
use waypost_testing::{
    process::RegistryProcess,
    registry::{ids, instance, millis, register_request, resolve_all, watch_of},
    wait::soon,
    watch::Follower,
};

use super::{Clients, FILE, READS, WRITES, is_refusal, next_health};

/// The TTL of the leases that are renewed.
const TTL: Duration = Duration::from_secs(2);
/// From the end of the cause to the end of the outage.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// The leases that are renewed throughout.
const STEADY: [&str; 3] = ["steady 0", "steady 1", "steady 2"];
const SILENT: &str = "silent";

/// An outage and what it is compared with.
pub(super) struct Outage {
    pub(super) clients: Clients,
    /// The refusal of every write.
    code: Code,
    leases: Vec<u64>,
    heartbeats: JoinHandle<()>,
    watch: Follower,
    reads: Vec<Streaming<HealthCheckResponse>>,
    writes: Streaming<HealthCheckResponse>,
    /// The number of writes before it.
    revision: u64,
}

impl Outage {
    /// Everything that may be open when it begins: instances that heartbeat, one that just stopped
    /// to, and watches.
    pub(super) async fn before(server: &RegistryProcess, code: Code) -> Self {
        let clients = Clients::of(server).await;
        let mut leases = Vec::new();
        for id in STEADY.into_iter().chain([SILENT]) {
            let request = RegisterRequest {
                ttl: Some(TTL.try_into().expect("it fits")),
                ..register_request(instance("orders", id))
            };
            let answer = clients.registry.clone().register(request).await.expect("registered");
            leases.push(answer.into_inner().lease_id);
        }
        leases.pop();
        let heartbeats = tokio::spawn(heartbeat(Clients::of(server).await, leases.clone()));
        let mut watching = Clients::of(server).await.discovery;
        let watch = Follower::ready(&mut watching, WatchRequest::default()).await;
        let mut reads = Vec::new();
        for service in READS {
            reads.push(clients.watch_health(service, ServingStatus::Serving).await);
        }
        let writes = clients.watch_health(WRITES, ServingStatus::Serving).await;
        let revision = clients.status().await.revision;
        Self { clients, code, leases, heartbeats, watch, reads, writes, revision }
    }

    /// Writes until one is refused.
    pub(super) async fn begin(&mut self) {
        let mut number = 0;
        let begin = async {
            loop {
                number += 1;
                match self.register(bulky("carts", &format!("taken {number}"))).await {
                    Ok(revision) => self.revision = revision,
                    Err(status) => break status,
                }
            }
        };
        let refused = timeout(TTL, begin).await.expect("the store is in trouble at once");
        self.expect_refusal(&refused);
        assert_eq!(next_health(&mut self.writes).await, ServingStatus::NotServing);
    }

    /// Checks that hold during the outage, which lasts longer than any TTL.
    pub(super) async fn lasts(&mut self, server: &mut RegistryProcess) {
        server.logs("store failed, rejecting writes").await;
        let before = self.resolve().await;
        assert_eq!(ids(&before), [SILENT, STEADY[0], STEADY[1], STEADY[2]]);
        self.watch.reach(self.revision).await;
        self.everything_is_refused().await;

        let status = self.clients.status().await;
        assert!(status.store_failure.contains(FILE), "{}", status.store_failure);
        assert_eq!(status.revision, self.revision, "what is refused takes no revision");
        let change = timeout(2 * TTL, self.watch.next_change()).await;
        assert!(change.is_err(), "nothing changes: {change:?}");
        self.everything_is_refused().await;
        assert_eq!(self.resolve().await, before, "nobody is removed half");
        let mut late = self.clients.discovery.clone();
        let late = Follower::ready(&mut late, watch_of(&["orders"])).await;
        assert_eq!(late.state.len(), before.len(), "watches begin");
        for health in &mut self.reads {
            let heard = health.message().now_or_never();
            assert!(heard.is_none(), "what only reads goes on serving: {heard:?}");
        }
        assert!(!self.heartbeats.is_finished(), "no lease was unknown");
    }

    /// Waits for the end, after its cause was removed. Returns the cursor of the registry then.
    pub(super) async fn end(mut self, server: &mut RegistryProcess) -> Cursor {
        let mended = Instant::now();
        assert_eq!(next_health(&mut self.writes).await, ServingStatus::Serving);
        assert!(mended.elapsed() < RECOVERY_MAX, "it took {:?}", mended.elapsed());
        assert_eq!(self.clients.status().await.store_failure, "");
        // The removal that had to wait, once; then what is asked for.
        let removed = self.watch.next_change().await;
        assert_eq!(
            (removed.kind(), removed.reason()),
            (ChangeKind::Removed, ChangeReason::Expired)
        );
        assert_eq!(removed.instance.as_ref().expect("an instance").id, SILENT);
        assert_eq!(removed.revision, self.revision + 1);
        let taken = self.register(instance("orders", "late")).await.expect("registered");
        assert_eq!(taken, self.revision + 2);
        let added = self.watch.next_change().await;
        assert_eq!((added.kind(), added.revision), (ChangeKind::Added, taken));
        assert_eq!(ids(&self.resolve().await), ["late", STEADY[0], STEADY[1], STEADY[2]]);
        assert_eq!(self.watch.snapshots, 1, "the watch went on");
        assert!(!self.heartbeats.is_finished(), "no lease was unknown");
        self.heartbeats.abort();

        server.logs("store recovered, accepting writes").await;
        for line in ["store failed, rejecting writes", "store recovered, accepting writes"] {
            let log = server.log();
            assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
        }
        self.watch.cursor.clone().expect("a position")
    }

    async fn resolve(&self) -> Vec<Instance> {
        let mut discovery = self.clients.discovery.clone();
        soon("a lookup", resolve_all(&mut discovery, "orders")).await.instances
    }

    async fn register(&self, instance: Instance) -> Result<u64, Status> {
        let request = RegisterRequest { ttl: Some(millis(300_000)), ..register_request(instance) };
        let mut registry = self.clients.registry.clone();
        let answer = soon("an answer", registry.register(request)).await?.into_inner();
        Ok(answer.cursor.expect("a cursor").revision)
    }

    async fn everything_is_refused(&self) {
        let refused = self.register(instance("orders", "refused")).await;
        self.expect_refusal(&refused.expect_err("refused"));
        let mut registry = self.clients.registry.clone();
        let update = UpdateRequest {
            lease_id: self.leases[0],
            instance: Some(Instance { weight: Some(1), ..Instance::default() }),
            update_mask: Some(FieldMask { paths: vec!["weight".to_owned()] }),
            ..UpdateRequest::default()
        };
        let refused = soon("an answer", registry.update(update)).await;
        self.expect_refusal(&refused.expect_err("refused"));
        let lease_id = self.leases[1];
        let deregister = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        let refused = soon("an answer", registry.deregister(deregister)).await;
        self.expect_refusal(&refused.expect_err("refused"));
        assert!(!self.clients.is_serving(WRITES).await);
    }

    fn expect_refusal(&self, status: &Status) {
        assert!(is_refusal(status, self.code), "{status:?}");
        assert!(status.message().contains(FILE), "{status:?}");
    }
}

/// An instance of some size.
pub(super) fn bulky(service: &str, id: &str) -> Instance {
    let metadata = [("filling".to_owned(), "x".repeat(4096))].into();
    Instance { metadata, ..instance(service, id) }
}

/// Renews leases for as long as all of them are known.
async fn heartbeat(mut clients: Clients, leases: Vec<u64>) {
    loop {
        let request = HeartbeatRequest { lease_ids: leases.clone() };
        let answer = soon("an answer", clients.registry.heartbeat(request)).await;
        let unknown = answer.expect("heartbeats are taken").into_inner().unknown_lease_ids;
        assert!(unknown.is_empty(), "unknown: {unknown:?}");
        sleep(TTL / 4).await;
    }
}
