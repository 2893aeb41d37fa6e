//! Calls while instances and the registry come and go: a real registry process, loopback replicas,
//! this project's channel, and beside it, in the same run, tonic's own (`Channel::balance_channel`)
//! with the same changes. Then the cost of a process that follows many services.
//!
//! `cargo bench --bench callers` (`-- --quick` for a moment of each).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::mpsc::Sender,
    task::JoinHandle,
    time::{MissedTickBehavior, sleep, timeout},
};
use tonic::transport::{
    Channel, Endpoint,
    channel::Change::{Insert, Remove},
};
use waypost_client::{
    Client, Registered, Registration, Service, Snapshot,
    proto::{Instance, RegisterRequest, Status, UpdateRequest, registry_client::RegistryClient},
};
use waypost_testing::{
    calls::{
        load::{CALLS_A_SECOND, DEADLINE, LoadedChannel, load},
        replica::{Behavior, Replica},
    },
    process::{
        RegistryProcess, Serve,
        usage::{cpu_time, memory_bytes},
    },
    registry::numbered_instance,
};

const SERVICE: &str = "greeter";
/// The response time of an instance.
const QUICK: Duration = Duration::from_millis(2);
/// The time that a draining instance may take.
const GRACE: Duration = Duration::from_secs(3);
/// The longest wait of a call without an instance.
const WAIT: Duration = Duration::from_secs(1);
/// The capacity of the channel of changes for `Channel::balance_channel`.
const TONIC_ROOM: usize = 1_024;

/// The size of a run.
struct Scale {
    replaced: usize,
    outage: Duration,
    changes: usize,
    services: u64,
    /// Instances of each.
    instances: u64,
    held: Duration,
}

const WHOLE: Scale = Scale {
    replaced: 10,
    outage: Duration::from_secs(60),
    changes: 10_000,
    services: 1_000,
    instances: 100,
    held: Duration::from_secs(20),
};

const MOMENT: Scale = Scale {
    replaced: 1,
    outage: Duration::from_millis(500),
    changes: 50,
    services: 10,
    instances: 5,
    held: Duration::from_secs(1),
};

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let said = |word: &str| words.iter().position(|said| said == word);
    let scale = if said("--quick").or(said("--test")).is_some() { MOMENT } else { WHOLE };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(hold) = said("--hold") {
        return runtime.block_on(hold_services(&words[hold + 1]));
    }
    println!(
        "{CALLS_A_SECOND} calls a second, deadlines of {DEADLINE:?}, instances that answer after \
         {QUICK:?}"
    );
    runtime.block_on(async {
        replacement(&scale).await;
        last_replaced().await;
        outage(&scale).await;
        idle(&scale).await;
        many_services(&scale).await;
    });
}

fn serve() -> Serve {
    Serve::new(env!("CARGO_BIN_EXE_waypost"))
}

/// A replica that is registered.
struct Greeting {
    replica: Replica,
    registered: Registered,
}

impl Greeting {
    async fn start(client: &Client) -> Self {
        let replica = Replica::start(Behavior::Responds(QUICK)).await;
        let (host, port) = (replica.address().ip().to_string(), replica.address().port());
        let registered = client.register(Registration::new(SERVICE, host, port)).await.unwrap();
        Self { replica, registered }
    }

    async fn leave(self) {
        self.registered.drain(GRACE).await.deregistered.unwrap();
        self.replica.stop().await;
    }
}

async fn start(client: &Client, count: usize) -> Vec<Greeting> {
    stream::iter(0..count).then(|_| Greeting::start(client)).collect().await
}

fn client(registry: &RegistryProcess) -> Client {
    Client::new(registry.url()).unwrap()
}

/// A registry, a client of it, and the called service with `count` instances.
async fn scene(count: usize) -> (RegistryProcess, Client, Vec<Greeting>, Service) {
    let registry = serve().start().await;
    let client = client(&registry);
    let greetings = start(&client, count).await;
    let service = client.service(SERVICE);
    until(&service, |view| view.serving() == count).await;
    (registry, client, greetings, service)
}

async fn until(service: &Service, reached: impl Fn(&Snapshot) -> bool) {
    let mut changes = service.changes();
    let seen = async { while !reached(&changes.next().await.unwrap()) {} };
    timeout(Duration::from_secs(60), seen).await.expect("the view");
}

/// Tonic's channel, and the task that feeds it the members, as its users do.
fn tonics(service: &Service) -> (Channel, JoinHandle<()>) {
    let (channel, changes) = Channel::balance_channel(TONIC_ROOM);
    (channel, tokio::spawn(keep_telling(service.clone(), changes, Arc::default())))
}

async fn keep_telling(
    service: Service,
    changes: Sender<tonic::transport::channel::Change<SocketAddr, Endpoint>>,
    told: Arc<AtomicUsize>,
) {
    let mut known = BTreeSet::new();
    let mut views = service.changes();
    while let Some(view) = views.next().await {
        let serves = |it: &&Instance| it.status() == Status::Up;
        let address = |it: &Instance| format!("{}:{}", it.host, it.port).parse().unwrap();
        let now: BTreeSet<SocketAddr> = view.instances().filter(serves).map(address).collect();
        let news = now.difference(&known).map(|new| {
            let endpoint = Endpoint::from_shared(format!("http://{new}")).unwrap();
            Insert(*new, endpoint)
        });
        for change in news.chain(known.difference(&now).map(|gone| Remove(*gone))) {
            if changes.send(change).await.is_err() {
                return;
            }
            told.fetch_add(1, Ordering::Relaxed);
        }
        known = now;
    }
}

/// Instances are replaced one by one, as a rolling release does.
async fn replacement(scale: &Scale) {
    println!("each of {} instances replaced by another, one after the other", scale.replaced);
    for ours in [true, false] {
        let (_registry, client, mut greetings, service) = scene(scale.replaced).await;
        let (way, _telling) = way(&service, ours);
        let replaced = async {
            for _ in 0..scale.replaced {
                greetings.push(Greeting::start(&client).await);
                greetings.remove(0).leave().await;
            }
        };
        load(way, replaced).await;
        leave(greetings).await;
    }
}

/// For a moment there is no instance.
async fn last_replaced() {
    println!(
        "the last instance is deregistered, and 200 ms later another one comes; calls wait for it"
    );
    for ours in [true, false] {
        let (_registry, client, greetings, service) = scene(1).await;
        let (way, _telling) = way(&service, ours);
        let way = match way {
            LoadedChannel::Waypost(channel) => LoadedChannel::Waypost(channel.wait_for_ready(WAIT)),
            tonics => tonics,
        };
        let mut after = Vec::new();
        let replaced = async {
            sleep(Duration::from_millis(300)).await;
            let mut replicas = Vec::new();
            for Greeting { replica, registered } in greetings {
                registered.deregister().await.unwrap();
                replicas.push(replica);
            }
            sleep(Duration::from_millis(200)).await;
            after.push(Greeting::start(&client).await);
            for replica in replicas {
                replica.stop().await;
            }
            sleep(Duration::from_secs(1)).await;
        };
        load(way, replaced).await;
        leave(after).await;
    }
}

/// The registry is killed, and another one that knows nothing listens there later.
async fn outage(scale: &Scale) {
    println!("the registry is killed for {:?}, and comes back empty", scale.outage);
    for ours in [true, false] {
        let (registry, _client, greetings, service) = scene(3).await;
        let (way, _telling) = way(&service, ours);
        let address = registry.address();
        let history = service.snapshot().unwrap().cursor().history_id.clone();
        let gone = async {
            drop(registry);
            sleep(scale.outage).await;
            let registry = serve().listen(address).start().await;
            let began = Instant::now();
            let right = |view: &Snapshot| {
                view.cursor().history_id != history
                    && view.serving() == 3
                    && view.missing().count() == 0
            };
            until(&service, right).await;
            (registry, began.elapsed())
        };
        let mut back = None;
        load(way, async { back = Some(gone.await) }).await;
        let (_registry, took) = back.unwrap();
        println!("           the view was right again {took:.1?} after it came back");
        leave(greetings).await;
    }
}

/// Measures the delay of instances that come without calls.
async fn idle(scale: &Scale) {
    println!("{} instances come while nobody calls", scale.changes);
    let registry = serve().start().await;
    let (client, channel) = (client(&registry), registry.channel().await);
    let service = client.service(SERVICE);
    service.ready().await.unwrap();
    let _ours = service.channel();
    let (_tonics, changes) = Channel::balance_channel(TONIC_ROOM);
    let told = Arc::<AtomicUsize>::default();
    let telling = tokio::spawn(keep_telling(service.clone(), changes, Arc::clone(&told)));
    register(
        &channel,
        (0..scale.changes as u64).map(|index| Instance {
            port: 10_000 + index as u32,
            host: "127.0.0.1".into(),
            ..numbered_instance(SERVICE, index)
        }),
    )
    .await;
    let changed = Instant::now();
    until(&service, |view| view.len() == scale.changes).await;
    println!("  waypost  the view is right {:.1?} after the last change", changed.elapsed());
    sleep(Duration::from_secs(1)).await;
    let (told, all) = (told.load(Ordering::Relaxed), scale.changes);
    println!("  tonic    took {told} of {all} changes in the second after");
    telling.abort();
}

fn way(service: &Service, ours: bool) -> (LoadedChannel, Option<JoinHandle<()>>) {
    if ours {
        return (LoadedChannel::Waypost(service.channel()), None);
    }
    let (channel, telling) = tonics(service);
    (LoadedChannel::Tonic(channel), Some(telling))
}

async fn leave(greetings: Vec<Greeting>) {
    for greeting in greetings {
        greeting.leave().await;
    }
}

/// Registers instances that need no heartbeat while this lasts.
async fn register(channel: &Channel, instances: impl Iterator<Item = Instance>) {
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let registrations = instances.map(|instance| {
        let request = RegisterRequest { instance: Some(instance), ttl, disconnect_grace: None };
        let mut registry = RegistryClient::new(channel.clone());
        async move { registry.register(request).await.unwrap() }
    });
    stream::iter(registrations).buffer_unordered(64).for_each(|_| async {}).await;
}

/// Measures a process that follows many services, while their instances change.
async fn many_services(scale: &Scale) {
    const CHANGES_A_SECOND: u32 = 1_000;
    let Scale { services, instances, held, .. } = *scale;
    println!(
        "a process that follows {services} services of {instances} instances, {CHANGES_A_SECOND} \
         changes a second for {held:?}"
    );
    let registry = serve().start().await;
    let channel = registry.channel().await;
    let name = |index: u64| format!("service-{}", index % services);
    let all = (0..services * instances).map(|index| numbered_instance(&name(index), index));
    register(&channel, all).await;
    let (holder, mut says) = holder(&registry, services);
    let empty = line(&mut says).parse::<u64>().unwrap();
    assert_eq!(line(&mut says), format!("{}", services * instances));
    let (memory, cpu, began) = (memory_bytes(&holder.id()), cpu_time(&holder.id()), Instant::now());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHANGES_A_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut index = 0;
    while began.elapsed() < held {
        ticks.tick().await;
        let changed =
            Instance { weight: Some(50 + index as u32 % 100), ..numbered_instance("", index) };
        let request = UpdateRequest {
            service: name(index),
            id: changed.id.clone(),
            instance: Some(changed),
            update_mask: Some(prost_types::FieldMask { paths: vec!["weight".into()] }),
            ..UpdateRequest::default()
        };
        RegistryClient::new(channel.clone()).update(request).await.unwrap();
        index = (index + 1) % (services * instances);
    }
    let (length, used) = (began.elapsed(), cpu_time(&holder.id()) - cpu);
    let rate = f64::from(CHANGES_A_SECOND);
    let each = (memory - empty) / (services * instances);
    println!(
        "  {:.1} % of a core at {rate:.0} changes a second; {} MB, {each} B for each instance",
        used.as_secs_f64() * 100.0 / length.as_secs_f64(),
        memory_bytes(&holder.id()) / 1_000_000,
    );
}

/// A process that follows services. Killed on drop.
struct Holder(Child);

impl Holder {
    fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts a process that follows services, and returns its output.
fn holder(registry: &RegistryProcess, services: u64) -> (Holder, BufReader<ChildStdout>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--hold", &format!("{} {services}", registry.address())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let says = BufReader::new(child.stdout.take().unwrap());
    (Holder(child), says)
}

fn line(says: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Runs in the other process: prints its memory before and the instances that it found, and follows
/// them until it is killed.
async fn hold_services(argument: &str) {
    let (registry, services) = argument.split_once(' ').unwrap();
    println!("{}", memory_bytes("self"));
    let client = Client::new(format!("http://{registry}")).unwrap();
    let services = services.parse().unwrap();
    let handles: Vec<Service> =
        (0..services).map(|index: u64| client.service(&format!("service-{index}"))).collect();
    let mut instances = 0;
    for service in &handles {
        service.ready().await.unwrap();
        instances += service.snapshot().unwrap().len();
    }
    println!("{instances}");
    std::future::pending::<()>().await;
}
