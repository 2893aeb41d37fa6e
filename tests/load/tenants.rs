//! One principal writes as fast as it can. The others, who write as they did before, get no
//! refusal. Prints how long their writes take without the flood and with it.
//!
//! `WAYPOST_TENANT_SECONDS`: the length of each of the two parts; 2 s otherwise.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tempfile::TempDir;
use tokio::{task::JoinSet, time::interval};
use tonic::{Code, Request, transport::Channel};
use waypost_auth::policy::NewToken;
use waypost_client::proto::{RegisterRequest, registry_client::RegistryClient};
use waypost_testing::{
    process::RegistryProcess,
    registry::{connect, instance, register_request},
    seed::from_environment,
};

use crate::support::{alone, serve};

/// The connections of the flood, and the calls at a time on each.
const FLOOD: (usize, usize) = (4, 32);
/// The others, and the time between two writes of each.
const OTHERS: usize = 8;
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

const RULES: &str = "[[allow]]
who = ['token/greedy', 'token/modest']
may = ['register']
on = '*/*'
[[limit]]
who = 'token/greedy'
writes = { per_second = 200, burst = 200 }
";

/// A registry, and the tokens of the two.
struct World {
    _place: TempDir,
    process: RegistryProcess,
    greedy: NewToken,
    modest: NewToken,
}

impl World {
    async fn start() -> Self {
        let place = TempDir::new().unwrap();
        let (greedy, modest) = (NewToken::generate().unwrap(), NewToken::generate().unwrap());
        let entry = |name: &str, token: &NewToken| {
            let sha256 = token.sha256();
            format!(
                "[[token]]\nname = '{name}'\nsha256 = '{sha256}'\nexpires = 2100-01-01T00:00:00Z\n"
            )
        };
        let tokens = entry("greedy", &greedy) + &entry("modest", &modest);
        let policy = place.path().join("policy.toml");
        fs::write(&policy, format!("{RULES}{tokens}")).unwrap();
        let audit = place.path().join("audit").into_os_string();
        let arguments = ["--policy".into(), policy.into_os_string(), "--audit".into(), audit];
        let process = serve().arguments(arguments).start().await;
        Self { _place: place, process, greedy, modest }
    }

    async fn caller(&self, token: &NewToken) -> Caller {
        let registry = RegistryClient::new(connect(self.process.address()).await);
        Caller { registry, authorization: format!("Bearer {}", token.text()) }
    }
}

#[derive(Clone)]
struct Caller {
    registry: RegistryClient<Channel>,
    authorization: String,
}

impl Caller {
    async fn write(&mut self, registration: RegisterRequest) -> Code {
        let mut request = Request::new(registration);
        request.metadata_mut().insert("authorization", self.authorization.parse().unwrap());
        let response = self.registry.register(request).await;
        response.map_or_else(|status| status.code(), |_| Code::Ok)
    }
}

/// Writes as fast as the registry responds, until `stop`. Returns the numbers of writes that were
/// made and refused.
async fn flood(world: &World, stop: &Arc<AtomicBool>) -> JoinSet<(u64, u64)> {
    let mut tasks = JoinSet::new();
    for connection in 0..FLOOD.0 {
        let caller = world.caller(&world.greedy).await;
        for call in 0..FLOOD.1 {
            let (mut caller, stop) = (caller.clone(), Arc::clone(stop));
            tasks.spawn(async move {
                let (mut made, mut refused) = (0, 0);
                let id = format!("{connection}-{call}");
                while !stop.load(Ordering::Relaxed) {
                    match caller.write(register_request(instance("greedy", &id))).await {
                        Code::Ok => made += 1,
                        Code::ResourceExhausted => refused += 1,
                        other => panic!("{other:?}"),
                    }
                }
                (made, refused)
            });
        }
    }
    tasks
}

/// Writes at a steady rate. Returns the times, in microseconds.
async fn others(world: &World, length: Duration) -> Histogram<u64> {
    let mut tasks = JoinSet::new();
    let refused = Arc::new(AtomicU64::new(0));
    for number in 0..OTHERS {
        let (mut caller, refused) = (world.caller(&world.modest).await, Arc::clone(&refused));
        tasks.spawn(async move {
            let mut times = Histogram::<u64>::new(3).unwrap();
            let (mut ticks, start) = (interval(WRITE_INTERVAL), Instant::now());
            let id = number.to_string();
            while start.elapsed() < length {
                let due = ticks.tick().await;
                if caller.write(register_request(instance("modest", &id))).await != Code::Ok {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                times.record(due.elapsed().as_micros() as u64).unwrap();
            }
            times
        });
    }
    let mut all = Histogram::new(3).unwrap();
    for times in tasks.join_all().await {
        all.add(times).unwrap();
    }
    assert_eq!(refused.load(Ordering::Relaxed), 0, "writes of others were refused");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_one_principal_refuses_no_write_of_others() {
    let _alone = alone().await;
    let length = Duration::from_secs(from_environment("WAYPOST_TENANT_SECONDS").unwrap_or(2));
    let world = World::start().await;
    let before = others(&world, length).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (flooding, start) = (flood(&world, &stop).await, Instant::now());
    let beside = others(&world, length).await;
    stop.store(true, Ordering::Relaxed);
    let counts = flooding.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    let made: u64 = counts.iter().map(|(made, _)| made).sum();
    let refused: u64 = counts.iter().map(|(_, refused)| refused).sum();
    let shown = |times: &Histogram<u64>| {
        let of = |share| times.value_at_quantile(share) as f64 / 1_000.0;
        format!("p50 {:.2} ms, p99 {:.2} ms of {}", of(0.5), of(0.99), times.len())
    };
    println!("writes of others without the flood: {}", shown(&before));
    println!("writes of others beside the flood:  {}", shown(&beside));
    println!("the flood: {:.0} calls/s, of them {made} made", (made + refused) as f64 / seconds);
    // Its burst and its rate; the last of them may be under way.
    let most = 200.0 + 200.0 * (seconds + 1.0);
    assert!(refused > 0 && (made as f64) < most, "{made} writes in {seconds} s");
}
