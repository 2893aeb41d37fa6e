//! Leases expire in time, neither earlier nor much later.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{sync::mpsc, task::JoinSet, time::sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use waypost_client::proto::{
    ChangeKind, ChangeReason, HeartbeatRequest, Instance, KeepAliveRequest, RegisterRequest,
    UpdateRequest, WatchRequest, discovery_client::DiscoveryClient,
    registry_client::RegistryClient,
};
use waypost_testing::{
    lateness::LatenessMonitor,
    registry::{connect, identity, instance, millis, register_request, resolve_all, watch_of},
    seed::seed,
    wait::soon,
    watch::Follower,
};

use crate::support::TestServer;

const LEASES: usize = 300;
/// So few to a namespace that no protection against mass expiry can set in.
const LEASES_A_NAMESPACE: usize = 9;
/// The contract's tolerance beyond the TTL.
const LATE_MAX: Duration = Duration::from_millis(100);

/// One lease as its holder knows it.
struct RenewedLease {
    lease: u64,
    ttl: Duration,
    /// The last acknowledged renewal: when it was sent, and when its response came.
    sent: Instant,
    answered: Instant,
}

fn namespace(number: usize) -> String {
    format!("n{}", number / LEASES_A_NAMESPACE)
}

async fn hold(
    mut registry: RegistryClient<tonic::transport::Channel>,
    number: usize,
    ttl: Duration,
) -> RenewedLease {
    let held = Instance { namespace: namespace(number), ..instance("held", &number.to_string()) };
    let request =
        RegisterRequest { ttl: Some(ttl.try_into().expect("fits")), ..register_request(held) };
    let sent = Instant::now();
    let answer = registry.register(request).await.expect("registered").into_inner();
    RenewedLease { lease: answer.lease_id, ttl, sent, answered: Instant::now() }
}

/// Renews a lease at these intervals. A renewal that comes too late, on a stalled machine, does not
/// count.
async fn renew(
    mut registry: RegistryClient<tonic::transport::Channel>,
    mut held: RenewedLease,
    renewals: Vec<Duration>,
) -> RenewedLease {
    for after in renewals {
        sleep_until((Instant::now() + after).into()).await;
        let sent = Instant::now();
        let request = HeartbeatRequest { lease_ids: vec![held.lease] };
        let answer = registry.heartbeat(request).await.expect("answered").into_inner();
        if answer.unknown_lease_ids.is_empty() {
            (held.sent, held.answered) = (sent, Instant::now());
        }
    }
    held
}

/// Waits for the removal of every instance of a namespace: when each was seen.
async fn removals(
    mut follower: Follower,
    count: usize,
) -> BTreeMap<String, (Instant, ChangeReason)> {
    let mut removed = BTreeMap::new();
    while removed.len() < count {
        let seen = follower.changes.len();
        follower.message().await;
        let now = Instant::now();
        for change in &follower.changes[seen..] {
            if change.kind() == ChangeKind::Removed {
                let id = change.instance.as_ref().expect("an instance").id.clone();
                removed.insert(id, (now, change.reason()));
            }
        }
    }
    removed
}

/// Reads removals on a thread of its own, so that nothing of this test delays it.
fn observe(server: &TestServer) -> (tokio::sync::oneshot::Receiver<()>, Observer) {
    let address = server.address();
    let (ready, opened) = tokio::sync::oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let mut discovery = DiscoveryClient::new(connect(address).await);
            let mut followers = Vec::new();
            for first in (0..LEASES).step_by(LEASES_A_NAMESPACE) {
                let request =
                    WatchRequest { namespace: namespace(first), ..WatchRequest::default() };
                let count = LEASES_A_NAMESPACE.min(LEASES - first);
                followers.push((Follower::ready(&mut discovery, request).await, count));
            }
            ready.send(()).expect("the test waits");
            let all = followers.into_iter().map(|(follower, count)| removals(follower, count));
            join_all(all).await.into_iter().flatten().collect()
        })
    });
    (opened, thread)
}

type Observer = thread::JoinHandle<BTreeMap<String, (Instant, ChangeReason)>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_expire_at_their_ttl_neither_earlier_nor_much_later() {
    let mut random = fastrand::Rng::with_seed(seed());
    let server = TestServer::start().await;
    let (opened, observer) = observe(&server);
    opened.await.expect("the watches open");
    let (monitor, started) = (LatenessMonitor::start(), Instant::now());

    let mut holders = JoinSet::new();
    for number in 0..LEASES {
        let ttl = Duration::from_millis(random.u64(1_000..=3_000));
        // Every third is renewed, up to three times, some of them close to the end.
        let renewals = match number % 3 {
            0 => (0..random.usize(1..=3)).map(|_| ttl * random.u32(20..=80) / 100).collect(),
            _ => Vec::new(),
        };
        let registry = server.registry();
        holders.spawn(async move {
            let held = hold(registry.clone(), number, ttl).await;
            (number.to_string(), renew(registry, held, renewals).await)
        });
    }
    let held: BTreeMap<String, RenewedLease> = holders.join_all().await.into_iter().collect();
    let removed = tokio::task::spawn_blocking(|| observer.join()).await.expect("joined");
    let removed = removed.expect("every lease ends");
    let stall = monitor.worst(started, Instant::now());

    assert_eq!(removed.len(), LEASES);
    let (mut soonest, mut latest, mut beyond) = (Duration::MAX, Duration::ZERO, 0);
    for (id, RenewedLease { ttl, sent, answered, .. }) in &held {
        let (seen, reason) = removed[id];
        assert_eq!(reason, ChangeReason::Expired, "{id}");
        assert!(seen >= *sent + *ttl, "{id} ended {:?} after a renewal of {ttl:?}", seen - *sent);
        soonest = soonest.min(seen - *sent - *ttl);
        let late = seen.saturating_duration_since(*answered + *ttl);
        latest = latest.max(late);
        beyond += u32::from(late > LATE_MAX);
    }
    eprintln!(
        "seen {soonest:?} to {latest:?} after the TTL, {beyond} beyond {LATE_MAX:?}; \
         this machine was up to {stall:?} late"
    );
    // A removal passes three threads that this machine may wake late: the one that moves the
    // wheel, the one that serves the connection, and the reader's.
    assert!(latest <= LATE_MAX + 3 * stall, "{latest:?} late, the machine {stall:?}");
    assert_eq!(server.status().await.instances, 0);
    server.stop().await;
}

/// Renews in every way in turn for several TTLs: such an instance is never removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_carries_a_lease_renews_it() {
    let server = TestServer::start().await;
    let ttl = Duration::from_secs(2);
    let mut registry = server.registry();
    let mut leases = BTreeMap::new();
    for way in ["heartbeat", "keep-alive", "update", "none"] {
        let request =
            RegisterRequest { ttl: Some(millis(2_000)), ..register_request(instance("held", way)) };
        let answer = registry.register(request).await.expect("registered").into_inner();
        leases.insert(way, answer.lease_id);
    }
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["held"])).await;
    let (requests, outgoing) = mpsc::channel(1);
    let answers = registry.keep_alive(ReceiverStream::new(outgoing)).await.expect("open");
    let mut answers = answers.into_inner();
    // A connection other than the one that registered.
    let mut other = RegistryClient::new(connect(server.address()).await);
    let begun = Instant::now();
    let mut rounds_in_time = true;
    while begun.elapsed() < ttl * 2 {
        let round = Instant::now();
        let lease_ids = vec![leases["heartbeat"]];
        let answer = other.heartbeat(HeartbeatRequest { lease_ids }).await.expect("answered");
        let mut unknown = answer.into_inner().unknown_lease_ids;
        let lease_ids = vec![leases["keep-alive"]];
        requests.send(KeepAliveRequest { lease_ids }).await.expect("sent");
        let answer = soon("an answer", answers.message()).await.expect("open").expect("one");
        unknown.extend(answer.unknown_lease_ids);
        let update = UpdateRequest {
            lease_id: leases["update"],
            instance: Some(instance("held", "update")),
            update_mask: Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] }),
            ..UpdateRequest::default()
        };
        let updated = other.update(update).await;
        sleep_until((round + ttl / 4).into()).await;
        // Only an instance that renewed in time counts.
        rounds_in_time &= round.elapsed() < ttl;
        assert!(!rounds_in_time || unknown.is_empty(), "{unknown:?} ended");
        assert!(!rounds_in_time || updated.is_ok(), "{updated:?}");
    }
    assert!(rounds_in_time, "this machine stood still for a whole TTL");
    let change = follower.next_change().await;
    assert_eq!(change.reason(), ChangeReason::Expired);
    assert_eq!(change.instance.expect("an instance").id, "none");
    let there = resolve_all(&mut server.discovery(), "held").await.instances;
    let there: Vec<_> = there.iter().map(identity).map(|(.., id)| id).collect();
    assert_eq!(there, ["heartbeat", "keep-alive", "update"]);
}

#[tokio::test]
async fn takeover_starts_a_new_ttl() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let with = |ttl_ms| RegisterRequest {
        ttl: Some(millis(ttl_ms)),
        ..register_request(instance("held", "a"))
    };
    registry.register(with(1_000)).await.expect("registered");
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["held"])).await;
    let sent = Instant::now();
    registry.register(with(2_000)).await.expect("taken over");
    let change = follower.next_change().await;
    assert!(sent.elapsed() >= Duration::from_secs(2), "it lived {:?}", sent.elapsed());
    assert_eq!((change.kind(), change.reason()), (ChangeKind::Removed, ChangeReason::Expired));
}
