//! What it costs to know who lives: a wave of leases that run out in the same moment, beside lookups,
//! and heartbeats among few and among many leases. A real server process and its load share this
//! machine's cores over loopback; what counts are the ratios within one run.
//! `cargo bench --bench liveness` (`-- waves` or `-- heartbeats` for one half, `-- --quick` for a
//! moment's run that measures nothing of worth).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::large_futures,
    reason = "a benchmark"
)]

mod support;

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use support::{A_SERVICE, CALLERS, CONNECTIONS, Process, instance, spread};
use tokio::{
    runtime::Runtime,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{interval, sleep, sleep_until},
};
use tonic::transport::Channel;
use waypost_client::proto::{
    GetStatusRequest, GetStatusResponse, HeartbeatRequest, Instance, RegisterRequest,
    ResolveRequest, WatchRequest, admin_client::AdminClient, discovery_client::DiscoveryClient,
    registry_client::RegistryClient, watch_response::Event,
};

/// Leases in one heartbeat at most.
const LEASES_A_HEARTBEAT: usize = 65_536;
const TTL_MAX: Duration = Duration::from_secs(300);
/// Services that are looked up while leases run out.
const KEPT_SERVICES: u64 = 200;
/// Lookups at a time, each at a steady pace: in all 4,000 a second.
const LOOKERS: u64 = 32;
const LOOKUP_INTERVAL: Duration = Duration::from_millis(8);
/// Timers are so exact; what is later than that was held up.
const TIMER_SLACK: Duration = Duration::from_millis(2);

struct Scale {
    rounds: usize,
    /// Leases that run out at once.
    wave: u64,
    wave_ttl: Duration,
    few: u64,
    many: u64,
    /// Heartbeats of one round.
    heartbeats: usize,
}

const WHOLE: Scale = Scale {
    rounds: 3,
    wave: 200_000,
    wave_ttl: Duration::from_secs(10),
    few: 1_000,
    many: 1_000_000,
    heartbeats: 100_000,
};

const QUICK: Scale = Scale {
    rounds: 1,
    wave: 2_000,
    wave_ttl: Duration::from_secs(3),
    few: 100,
    many: 2_000,
    heartbeats: 2_000,
};

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let said = |word: &str| words.iter().any(|said| said == word);
    let scale = if said("--quick") || said("--test") { QUICK } else { WHOLE };
    let both = said("waves") == said("heartbeats");
    Runtime::new().unwrap().block_on(async {
        if both || said("waves") {
            waves(&scale).await;
        }
        if both || said("heartbeats") {
            heartbeats(&scale).await;
        }
    });
}

async fn waves(scale: &Scale) {
    println!(
        "{} leases run out at once, beside lookups; {} rounds: median (least to most)",
        scale.wave, scale.rounds
    );
    let layouts = [Layout::Spread, Layout::OneNamespace];
    for (store, layout) in ["disk", "memory"].into_iter().flat_map(|s| layouts.map(|l| (s, l))) {
        let mut waves = Vec::new();
        for _ in 0..scale.rounds {
            waves.push(wave(scale, store, layout).await);
        }
        let of = |figure: fn(&Wave) -> f64| spread(waves.iter().map(figure));
        println!("{store} store, {}", layout.name());
        println!("  first due to last judged   {} ms", of(|wave| wave.judged_ms));
        println!("  removed, the rest suspect  {}", of(|wave| wave.removed));
        println!("  lookups before             {}", shown(&waves, |wave| &wave.before));
        println!("  lookups beside a busy core {}", shown(&waves, |wave| &wave.beside_busy));
        println!("  lookups meanwhile          {}", shown(&waves, |wave| &wave.meanwhile));
        println!("  p99 meanwhile / before     {}", of(|wave| wave.ratio(&wave.before)));
        println!("  ... / beside a busy core   {}", of(|wave| wave.ratio(&wave.beside_busy)));
    }
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

/// Where the leases are that run out.
#[derive(Clone, Copy)]
enum Layout {
    /// So few to a namespace that no protection against mass expiry sets in.
    Spread,
    /// All in one.
    OneNamespace,
}

impl Layout {
    const A_NAMESPACE: u64 = 9;

    fn name(self) -> &'static str {
        match self {
            Self::Spread => "9 to a namespace",
            Self::OneNamespace => "all in one namespace",
        }
    }

    fn instance(self, index: u64) -> Instance {
        match self {
            Self::Spread => Instance {
                namespace: format!("namespace-{}", index / Self::A_NAMESPACE),
                ..instance("dying", index)
            },
            Self::OneNamespace => Instance {
                namespace: "dying".to_owned(),
                ..instance(&format!("service-{}", index / A_SERVICE), index)
            },
        }
    }
}

/// What became of one wave.
struct Wave {
    judged_ms: f64,
    removed: f64,
    before: Histogram<u64>,
    /// Beside a thread that does nothing but keep a core busy.
    beside_busy: Histogram<u64>,
    meanwhile: Histogram<u64>,
}

impl Wave {
    /// The lookups' p99 meanwhile, to what it was at another time.
    fn ratio(&self, to: &Histogram<u64>) -> f64 {
        millis(&self.meanwhile, 0.99) / millis(to, 0.99)
    }
}

fn millis(micros: &Histogram<u64>, quantile: f64) -> f64 {
    micros.value_at_quantile(quantile) as f64 / 1000.0
}

fn shown(waves: &[Wave], lookups: fn(&Wave) -> &Histogram<u64>) -> String {
    let of = |quantile| spread(waves.iter().map(|wave| millis(lookups(wave), quantile)));
    let count: u64 = waves.iter().map(|wave| lookups(wave).len()).sum();
    format!("p50 {} ms   p99 {} ms   ({count} in all)", of(0.5), of(0.99))
}

async fn wave(scale: &Scale, store: &str, layout: Layout) -> Wave {
    let process = Process::waypost(store);
    let channels = process.connect().await;
    let kept = |index| instance(&format!("kept-{}", index / A_SERVICE), index);
    register_all(&channels, KEPT_SERVICES * A_SERVICE, TTL_MAX, kept, &Arc::default()).await;

    // Renewed for as long as others still register.
    let leases = Arc::new(Mutex::new(Vec::new()));
    let (renewing, renewals) = (channels[0].clone(), Arc::clone(&leases));
    let renewal_interval = scale.wave_ttl / 5;
    let renewals = tokio::spawn(async move {
        loop {
            sleep(renewal_interval).await;
            let leases = renewals.lock().unwrap().clone();
            renew(&renewing, &leases).await;
        }
    });
    let dying = move |index| layout.instance(index);
    register_all(&channels, scale.wave, scale.wave_ttl, dying, &leases).await;
    renewals.abort();
    let leases = leases.lock().unwrap().clone();
    let mut admin = AdminClient::new(process.connect_once().await);
    let before = status(&mut admin).await;

    let renewed_at = Instant::now();
    renew(&channels[0], &leases).await;
    let due = renewed_at + scale.wave_ttl;
    let lookups = Lookups::begin(&process).await;
    let at = |share: f64| renewed_at + scale.wave_ttl.mul_f64(share);
    let (quiet, busy) = ((at(0.2), at(0.6)), (at(0.65), at(0.8)));
    sleep_until(busy.0.into()).await;
    spawn_blocking(move || while Instant::now() < busy.1 {}).await.unwrap();
    sleep_until((due - Duration::from_millis(5)).into()).await;
    let (judged_at, after) = loop {
        let now = status(&mut admin).await;
        // Each judgement is a change, a removal as well as a suspicion.
        if now.revision >= before.revision + scale.wave {
            break (Instant::now(), now);
        }
        assert!(due.elapsed() < Duration::from_secs(60), "leases are not judged");
        sleep(Duration::from_millis(5)).await;
    };
    let [before_wave, beside_busy, meanwhile] = lookups.end([quiet, busy, (due, judged_at)]).await;
    Wave {
        judged_ms: (judged_at - due).as_secs_f64() * 1000.0,
        removed: (before.instances - after.instances) as f64,
        before: before_wave,
        beside_busy,
        meanwhile,
    }
}

async fn status(admin: &mut AdminClient<Channel>) -> GetStatusResponse {
    admin.get_status(GetStatusRequest {}).await.unwrap().into_inner()
}

/// Lookups at a steady pace: when each was to begin, and how long it took.
struct Lookups {
    stop: Arc<AtomicBool>,
    lookers: Vec<JoinHandle<Vec<(Instant, Duration)>>>,
}

impl Lookups {
    async fn begin(process: &Process) -> Self {
        let channels = process.connect().await;
        let stop = Arc::new(AtomicBool::new(false));
        let looker = |looker: u64| {
            let discovery = DiscoveryClient::new(channels[looker as usize % CONNECTIONS].clone());
            tokio::spawn(look(discovery, looker, Arc::clone(&stop)))
        };
        Self { lookers: (0..LOOKERS).map(looker).collect(), stop }
    }

    /// The microseconds that lookups took which were to begin within each period.
    async fn end(self, periods: [(Instant, Instant); 3]) -> [Histogram<u64>; 3] {
        self.stop.store(true, Ordering::Relaxed);
        let mut micros = periods.map(|_| Histogram::<u64>::new(3).unwrap());
        for looker in self.lookers {
            for (begun, took) in looker.await.unwrap() {
                for ((from, until), micros) in periods.iter().zip(&mut micros) {
                    if (*from..*until).contains(&begun) {
                        micros.record(took.as_micros() as u64).unwrap();
                    }
                }
            }
        }
        micros
    }
}

async fn look(
    mut discovery: DiscoveryClient<Channel>,
    looker: u64,
    stop: Arc<AtomicBool>,
) -> Vec<(Instant, Duration)> {
    // Not all at the same moment.
    sleep(LOOKUP_INTERVAL * looker as u32 / LOOKERS as u32).await;
    let mut pace = interval(LOOKUP_INTERVAL);
    let mut lookups = Vec::new();
    for turn in 0.. {
        let due = pace.tick().await.into_std();
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let now = Instant::now();
        // What was held up by the one before it counts from when it was due.
        let begun = if now > due + TIMER_SLACK { due } else { now };
        let service = format!("kept-{}", (turn * 31 + looker * 7) % KEPT_SERVICES);
        let request = ResolveRequest { service, ..ResolveRequest::default() };
        let found = discovery.resolve(request).await.unwrap().into_inner().instances;
        assert_eq!(found.len() as u64, A_SERVICE);
        lookups.push((begun, begun.elapsed()));
    }
    lookups
}

/// A server with live leases, and a watch that heartbeats must not wake.
struct Filled {
    process: Process,
    channels: Vec<Channel>,
    leases: Vec<u64>,
    /// Messages other than `Idle` that the watch got after its snapshot.
    told: Arc<AtomicU64>,
}

/// What heartbeats cost in one round.
struct Cost {
    cpu_micros: f64,
    rate: f64,
    disk_bytes: u64,
    told: u64,
}

impl Filled {
    async fn start(instances: u64) -> Self {
        let process = Process::waypost("disk");
        let channels = process.connect().await;
        let leases = Arc::new(Mutex::new(Vec::new()));
        let living = |index| instance(&format!("service-{}", index / A_SERVICE), index);
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
        let before = (self.process.cpu(), self.process.disk_bytes());
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
        let cpu = self.process.cpu() - before.0;
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

/// Watches services whose instances heartbeat, for as long as the process lives.
async fn watch(process: &Process, told: Arc<AtomicU64>) {
    let services = (0..50).map(|index| format!("service-{index}")).collect();
    let request = WatchRequest { services, ..WatchRequest::default() };
    let mut discovery = DiscoveryClient::new(process.connect_once().await);
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
