//! Files are put into force whole, or not: broken ones change nothing, and a server under load
//! loses no call while they change (S5).

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::Code;
use waypost_client::proto::{ListServicesRequest, WatchRequest, discovery_client::DiscoveryClient};
use waypost_testing::{
    authority::TestAuthority,
    process::RegistryProcess,
    seed::{from_environment, seed},
    wait::soon,
    watch::Follower,
};

use super::support::{
    Place, Protocol, RawCaller, Reading, Tenant, connect_tls, serve, static_token, token_table,
};
use crate::support::{self, TestServer};

const INVALID: &str = "invalid policy or certificates, keeping the previous ones";
const LONG: u64 = 300_000;
const WORKLOAD: &str = "spiffe://test/ns/shop/sa/orders";
const CALLERS: usize = 4;

fn policy(more: &str) -> String {
    let who = format!("['token/admin', '{WORKLOAD}']");
    let may = "['discover', 'register', 'operate', 'status']";
    format!("{more}\n[[allow]]\nwho = {who}\nmay = {may}\non = '*/*'\n{}", token_table("admin", ""))
}

/// Starts a process with TLS and the policy of a place.
async fn start(place: &Place, listen: &str) -> RegistryProcess {
    let path = |path: std::path::PathBuf| path.to_str().expect("UTF-8").to_owned();
    let (policy, tls) = (path(place.policy()), path(place.tls()));
    let listen = listen.parse().expect("an address");
    support::serve().listen(listen).arguments(["--policy", &policy, "--tls", &tls]).start().await
}

async fn connect(place: &Place, port: u16) -> Tenant {
    let address = ([127, 0, 0, 1], port).into();
    Tenant::over(connect_tls(address, place.authority.connector(None)).await, "admin")
}

/// Waits until the log has as many errors of files; returns the latest.
async fn errors(process: &RegistryProcess, count: usize) -> String {
    let found = async {
        loop {
            let log = process.log();
            let lines: Vec<_> = log.lines().filter(|line| line.contains(INVALID)).collect();
            if lines.len() >= count && log.ends_with('\n') {
                assert_eq!(lines.len(), count, "one line for each change: {lines:#?}");
                return lines.last().copied().unwrap_or_default().to_owned();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon("an error in the log", found).await
}

#[tokio::test]
async fn broken_files_change_nothing_and_are_logged_once() {
    let place = Place::new(&policy(""));
    let process = start(&place, "127.0.0.1:0").await;
    let port = process.address().port();
    let admin = connect(&place, port).await;
    let whole = fs::read_to_string(place.policy()).expect("a policy");
    let other = place.authority.issue("127.0.0.1").0.pem();
    // One file a step: the errors of those before stay, and all are in one line.
    let steps: [(&str, &dyn Fn()); 6] = [
        ("policy.toml: line ", &|| place.write_file("policy.toml", &whole[..whole.len() / 2])),
        ("policy.toml: cannot be read", &|| fs::remove_file(place.policy()).expect("removed")),
        ("enforced: is no known key", &|| place.write_policy("enforced = true")),
        ("tls.key", &|| place.write_file("tls/tls.crt", &other)),
        ("ca.crt", &|| place.write_file("tls/ca.crt", "")),
        ("keys.json", &|| place.write_file("keys.json", "{\"keys\": [")),
    ];
    for (number, (expected, step)) in steps.iter().enumerate() {
        step();
        let error = errors(&process, number + 1).await;
        assert!(error.contains(expected), "{expected} in {error}");
        assert_eq!(admin.epoch().await, 1, "{expected}");
        // What was in force serves new connections, too.
        assert_eq!(connect(&place, port).await.epoch().await, 1, "{expected}");
    }
    let error = errors(&process, steps.len()).await;
    for (expected, _) in &steps[2..] {
        assert!(error.contains(expected), "{expected} in {error}");
    }
    place.write_keys();
    place.authority.write_folder(&place.tls(), &place.authority.issue("127.0.0.1"));
    place.write_policy(&policy("# a new one"));
    assert_eq!(admin.epoch_after(1).await, 2);
    let log = process.log();
    assert!(!log.contains("BEGIN") && !log.contains(&static_token("admin")), "a secret: {log}");
}

#[tokio::test]
async fn later_policy_opens_no_port_that_the_start_would_not() {
    let place = Place::new(&policy(""));
    let process = start(&place, "0.0.0.0:0").await;
    let port = process.address().port();
    let admin = connect(&place, port).await;
    place.write_policy(&policy("enforce = false"));
    let error = errors(&process, 1).await;
    assert!(error.contains("`enforce = false`") && error.contains("--insecure"), "{error}");
    assert_eq!(admin.epoch().await, 1);
    let tls = place.authority.connector(None);
    let address = ([127, 0, 0, 1], port).into();
    let mut nobody = RawCaller::new(address, Protocol::Http2, Some(tls));
    let answer = nobody.grpc("waypost.v1.Admin/WhoAmI", &[], Reading::All).await;
    assert_eq!(answer.status.code(), Code::Unauthenticated);
}

/// The state that all tasks of a chaos share.
#[derive(Default)]
struct Chaos {
    is_over: AtomicBool,
    calls: AtomicU64,
    connections: AtomicU64,
}

impl Chaos {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

/// Calls over one connection until the end; none fails.
async fn call_on(chaos: Arc<Chaos>, tenant: Tenant, service: String) {
    let lease = tenant.register(&service, "a", LONG, LONG).await;
    let mut renewals = tenant.keep_alive().await;
    while chaos.goes_on() {
        assert_eq!(tenant.heartbeat(&[lease]).await, [0; 0]);
        assert_eq!(renewals.renew(&[lease]).await, [0; 0]);
        assert!(!tenant.instances(&service).await.is_empty());
        tenant.register(&service, "b", LONG, LONG).await;
        chaos.calls.fetch_add(4, Ordering::Relaxed);
        sleep(Duration::from_millis(2)).await;
    }
}

/// Connects anew with a certificate for each call until the end; none fails.
async fn connect_on(chaos: Arc<Chaos>, place: Arc<Place>, server: Arc<TestServer>) {
    let identity = place.authority.issue(WORKLOAD);
    while chaos.goes_on() {
        let tls = place.authority.connector(Some(&identity));
        let channel = connect_tls(server.address(), tls).await;
        let request = ListServicesRequest { namespace: "shop".to_owned(), ..Default::default() };
        let listed = DiscoveryClient::new(channel).list_services(request).await;
        listed.expect("a response");
        chaos.connections.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(10)).await;
    }
}

/// Changes a file to another good state, or to a broken one for a moment.
async fn change_one(place: &Place, random: &mut Rng, number: u64) {
    let next = TestAuthority::new(&format!("authority {number}"));
    match random.u8(..6) {
        0 => place.write_policy(&policy(&format!("# {number}"))),
        1 => place.write_policy(&policy(&token_table(&format!("t{number}"), ""))),
        // Its files are written one by one: a key without its certificate for a moment.
        2 => place.authority.write_folder(&place.tls(), &place.authority.issue("127.0.0.1")),
        3 => place.write_file("tls/ca.crt", &(place.authority.pem() + &next.pem())),
        4 => {
            place.write_file("policy.toml", "[[allow]]\nwho = ");
            sleep(Duration::from_millis(random.u64(..300))).await;
            place.write_policy(&policy(&format!("# whole {number}")));
        }
        _ => {
            place.write_file("tls/tls.crt", "");
            sleep(Duration::from_millis(random.u64(..300))).await;
            place.authority.write_folder(&place.tls(), &place.authority.issue("127.0.0.1"));
        }
    }
    sleep(Duration::from_millis(random.u64(..400))).await;
}

/// Longer: `WAYPOST_SOAK_SECONDS`.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_policy_and_certificates_fail_no_call() {
    let mut random = Rng::with_seed(seed());
    let seconds = from_environment("WAYPOST_SOAK_SECONDS").unwrap_or(6);
    let place = Arc::new(Place::new(&policy("")));
    let server = Arc::new(serve(place.with_tls()).await);
    let port = server.address().port();
    let chaos = Arc::<Chaos>::default();
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let tenant = connect(&place, port).await;
        tasks.spawn(call_on(Arc::clone(&chaos), tenant, format!("service-{number}")));
        tasks.spawn(connect_on(Arc::clone(&chaos), Arc::clone(&place), Arc::clone(&server)));
    }
    let identity = place.authority.issue(WORKLOAD);
    let tls = place.authority.connector(Some(&identity));
    let mut watched = DiscoveryClient::new(connect_tls(server.address(), tls).await);
    let request = WatchRequest { namespace: "shop".to_owned(), ..WatchRequest::default() };
    let mut follower = Follower::ready(&mut watched, request).await;
    let admin = connect(&place, port).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut changes = 0;
    while Instant::now() < end {
        change_one(&place, &mut random, changes).await;
        changes += 1;
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("no call fails");
        }
    }
    // One more that has to come into force, with all that is on disk by now.
    let epoch = admin.epoch().await;
    place.write_policy(&policy("# the last"));
    let last = admin.epoch_after(epoch).await;
    chaos.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no call fails");
    }
    admin.register("service-0", "end", LONG, LONG).await;
    while !follower.state.keys().any(|(_, _, id)| id == "end") {
        follower.message().await;
    }
    assert_eq!(follower.snapshots, 1, "the watch goes on");
    let [calls, connections] =
        [&chaos.calls, &chaos.connections].map(|count| count.load(Ordering::Relaxed));
    eprintln!("{changes} changes, {last} epochs, {calls} calls, {connections} connections");
    assert!(last > 2 && calls > 0 && connections > 0);
}
