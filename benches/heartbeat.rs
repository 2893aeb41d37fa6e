//! The cost of a heartbeat among few and among many active leases; and a proof that it touches no
//! disk and no watcher. A real server process and its load share this machine's cores over
//! loopback; the ratio within one run counts. `cargo bench --bench heartbeat` (`-- --quick` for a
//! short run without meaning).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::large_futures,
    reason = "a benchmark"
)]

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Runtime, task::JoinSet};
use tonic::transport::Channel;
use waypost_client::proto::{
    HeartbeatRequest, Instance, RegisterRequest, WatchRequest, discovery_client::DiscoveryClient,
    registry_client::RegistryClient, watch_response::Event,
};
use waypost_testing::{
    figures::spread,
    process::{RegistryProcess, Serve},
    registry::numbered_instance,
};

const CONNECTIONS: usize = 16;
const CALLERS: usize = 64;
/// Instances of a service.
const A_SERVICE: u64 = 20;
/// Leases in one heartbeat at most.
const LEASES_A_HEARTBEAT: usize = 65_536;
const TTL_MAX: Duration = Duration::from_secs(300);

struct Scale {
    rounds: usize,
    few: u64,
    many: u64,
    /// Heartbeats of one round.
    heartbeats: usize,
}

const WHOLE: Scale = Scale { rounds: 3, few: 1_000, many: 1_000_000, heartbeats: 100_000 };

const QUICK: Scale = Scale { rounds: 1, few: 100, many: 2_000, heartbeats: 2_000 };

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let said = |word: &str| words.iter().any(|said| said == word);
    let scale = if said("--quick") || said("--test") { QUICK } else { WHOLE };
    Runtime::new().unwrap().block_on(heartbeats(&scale));
}

async fn heartbeats(scale: &Scale) {
    let servers = [Filled::start(scale.few).await, Filled::start(scale.many).await];
    println!(
        "heartbeats among live leases, {} from {CALLERS} callers on {CONNECTIONS} connections; \
         {} rounds: median (least to most)",
        scale.heartbeats, scale.rounds
    );
    for leases in [1, 100] {
        let mut costs: [Vec<Cost>; 2] = Default::default();
        for _ in 0..scale.rounds {
            for (server, costs) in servers.iter().zip(&mut costs) {
                costs.push(server.measure(scale.heartbeats, leases).await);
            }
        }
        println!("{leases} leases a heartbeat");
        for (server, costs) in servers.iter().zip(&costs) {
            println!(
                "  {:>9} live leases        {} µs of the server's CPU each, {}/s; \
                 {} bytes to disk, {} messages to watches",
                server.leases.len(),
                spread(costs.iter().map(|cost| cost.cpu_micros)),
                spread(costs.iter().map(|cost| cost.rate)),
                costs.iter().map(|cost| cost.disk_bytes).sum::<u64>(),
                costs.iter().map(|cost| cost.told).sum::<u64>(),
            );
        }
        let [few, many] = &costs;
        let ratios = few.iter().zip(many).map(|(few, many)| many.cpu_micros / few.cpu_micros);
        println!("  ratio                      {}", spread(ratios));
    }
}

/// A server with live leases, and a watch that heartbeats must not wake.
struct Filled {
    process: RegistryProcess,
    channels: Vec<Channel>,
    leases: Vec<u64>,
    /// Messages other than `Idle` that the watch got after its snapshot.
    told: Arc<AtomicU64>,
}

/// The cost of heartbeats in one round.
struct Cost {
    cpu_micros: f64,
    rate: f64,
    disk_bytes: u64,
    told: u64,
}

impl Filled {
    async fn start(instances: u64) -> Self {
        let process = Serve::new(env!("CARGO_BIN_EXE_waypost"))
            .directory_in(env!("CARGO_TARGET_TMPDIR"))
            .disk("data")
            .start()
            .await;
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(process.channel().await);
        }
        let leases = Arc::new(Mutex::new(Vec::new()));
        let living = |index| numbered_instance(&format!("service-{}", index / A_SERVICE), index);
        register_all(&channels, instances, TTL_MAX, living, &leases).await;
        let leases = leases.lock().unwrap().clone();
        let told = Arc::new(AtomicU64::new(0));
        watch(&process, Arc::clone(&told)).await;
        Self { process, channels, leases, told }
    }

    /// Heartbeats that touch leases spread evenly over all.
    async fn measure(&self, heartbeats: usize, leases: usize) -> Cost {
        renew(&self.channels[0], &self.leases).await;
        let requests: Vec<Vec<HeartbeatRequest>> = (0..CALLERS)
            .map(|caller| self.requests(caller, heartbeats / CALLERS, leases))
            .collect();
        let sent: usize = requests.iter().map(Vec::len).sum();
        let before = (self.process.cpu_time(), self.process.disk_bytes());
        let told = self.told.load(Ordering::Relaxed);
        let begun = Instant::now();
        let mut callers = JoinSet::new();
        for (caller, requests) in requests.into_iter().enumerate() {
            let mut registry = RegistryClient::new(self.channels[caller % CONNECTIONS].clone());
            callers.spawn(async move {
                for request in requests {
                    let answer = registry.heartbeat(request).await.unwrap().into_inner();
                    assert!(answer.unknown_lease_ids.is_empty());
                }
            });
        }
        callers.join_all().await;
        let time = begun.elapsed();
        let cpu = self.process.cpu_time() - before.0;
        Cost {
            cpu_micros: cpu.as_secs_f64() * 1e6 / sent as f64,
            rate: sent as f64 / time.as_secs_f64(),
            disk_bytes: self.process.disk_bytes() - before.1,
            told: self.told.load(Ordering::Relaxed) - told,
        }
    }

    fn requests(&self, caller: usize, heartbeats: usize, leases: usize) -> Vec<HeartbeatRequest> {
        // A large prime: neighbours in time are far from each other in the table.
        let lease = |nth: usize| self.leases[nth * 15_485_863 % self.leases.len()];
        (0..heartbeats)
            .map(|heartbeat| (heartbeat * CALLERS + caller) * leases)
            .map(|first| (first..first + leases).map(lease).collect())
            .map(|lease_ids| HeartbeatRequest { lease_ids })
            .collect()
    }
}

/// Watches services whose instances heartbeat, until the process ends.
async fn watch(process: &RegistryProcess, told: Arc<AtomicU64>) {
    let services = (0..50).map(|index| format!("service-{index}")).collect();
    let request = WatchRequest { services, ..WatchRequest::default() };
    let mut discovery = DiscoveryClient::new(process.channel().await);
    let mut watch = discovery.watch(request).await.unwrap().into_inner();
    while let Some(Event::Snapshot(snapshot)) = watch.message().await.unwrap().unwrap().event
        && !snapshot.last
    {}
    tokio::spawn(async move {
        while let Ok(Some(message)) = watch.message().await {
            if !matches!(message.event, Some(Event::Idle(_))) {
                told.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

/// Registers instances and notes their leases.
async fn register_all(
    channels: &[Channel],
    count: u64,
    ttl: Duration,
    instance: impl Fn(u64) -> Instance + Copy + Send + 'static,
    leases: &Arc<Mutex<Vec<u64>>>,
) {
    let next = Arc::new(AtomicU64::new(0));
    let ttl: prost_types::Duration = ttl.try_into().unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut registry = RegistryClient::new(channels[caller % CONNECTIONS].clone());
        let (next, leases) = (Arc::clone(&next), Arc::clone(leases));
        callers.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                let instance = Some(instance(index));
                let request = RegisterRequest { instance, ttl: Some(ttl), disconnect_grace: None };
                let lease = registry.register(request).await.unwrap().into_inner().lease_id;
                leases.lock().unwrap().push(lease);
            }
        });
    }
    callers.join_all().await;
}

/// Renews all in as few heartbeats as can be.
async fn renew(channel: &Channel, leases: &[u64]) {
    let mut registry = RegistryClient::new(channel.clone());
    for leases in leases.chunks(LEASES_A_HEARTBEAT) {
        let request = HeartbeatRequest { lease_ids: leases.to_vec() };
        let answer = registry.heartbeat(request).await.unwrap().into_inner();
        assert_eq!(answer.unknown_lease_ids, [0_u64; 0], "they live");
    }
}
