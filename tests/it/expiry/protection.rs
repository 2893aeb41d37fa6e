//! Mass-expiry protection: leases that expire with many others are held.

use std::{collections::BTreeSet, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use waypost::model::Limits;
use waypost_client::proto::{Change, ChangeKind, ChangeReason, HeartbeatRequest, Instance, KeepAliveRequest, ListServicesRequest, RegisterRequest, ReleaseProtectionRequest, ResolveRequest, Status, UpdateRequest, WatchRequest};
use waypost_testing::{registry::{instance, millis, register_request, resolve_all_in}, wait::soon, watch::Follower};

use crate::support::TestServer;

const TTL: Duration = Duration::from_secs(2);

/// The statuses that instances declare, by turns.
const DECLARED: [Status; 5] =
    [Status::Up, Status::Draining, Status::Starting, Status::Up, Status::Down];

/// The status that the instance with this number as its id declares.
fn declared(id: &str) -> Status {
    id.parse::<usize>().map_or(Status::Up, |number| DECLARED[number % DECLARED.len()])
}

/// The status that is shown of the instance while its lease is held.
fn held_as(id: &str) -> Status {
    match declared(id) {
        Status::Up => Status::Suspect,
        status => status,
    }
}

async fn register(server: &TestServer, namespace: &str, id: &str) -> u64 {
    let instance = Instance {
        namespace: namespace.to_owned(),
        status: declared(id).into(),
        ..instance("orders", id)
    };
    let ttl = Some(TTL.try_into().expect("fits"));
    let request = RegisterRequest { ttl, ..register_request(instance) };
    server.registry().register(request).await.expect("registered").into_inner().lease_id
}

async fn heartbeat(server: &TestServer, lease_ids: Vec<u64>) -> Vec<u64> {
    let request = HeartbeatRequest { lease_ids };
    let answer = server.registry().heartbeat(request).await.expect("answered");
    answer.into_inner().unknown_lease_ids
}

/// Renews leases for as long as it is polled.
async fn keep_alive(server: &TestServer, leases: Vec<u64>) {
    loop {
        assert!(heartbeat(server, leases.clone()).await.is_empty(), "it lives");
        sleep(TTL / 8).await;
    }
}

fn watch_of_all(namespace: &str) -> WatchRequest {
    WatchRequest { namespace: namespace.to_owned(), ..WatchRequest::default() }
}

fn id(change: &Change) -> String {
    change.instance.as_ref().expect("an instance").id.clone()
}

fn status(change: &Change) -> Status {
    change.instance.as_ref().expect("an instance").status()
}

/// Reads changes; returns the ids of the removed instances and of the held ones.
async fn losses(follower: &mut Follower, count: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut removed, mut held) = (BTreeSet::new(), BTreeSet::new());
    for change in follower.next_changes(count).await {
        match (change.kind(), change.reason()) {
            (ChangeKind::Removed, ChangeReason::Expired) => removed.insert(id(&change)),
            (ChangeKind::Updated, ChangeReason::Unspecified) => {
                assert_eq!(status(&change), held_as(&id(&change)));
                held.insert(id(&change))
            }
            _ => panic!("{change:?}"),
        };
    }
    (removed, held)
}

/// The ids of the instances that a caller gets.
async fn callable(server: &TestServer) -> BTreeSet<String> {
    let request = ResolveRequest {
        namespace: "shop".to_owned(),
        service: "orders".to_owned(),
        ..ResolveRequest::default()
    };
    let resolved = server.discovery().resolve(request).await.expect("resolved").into_inner();
    resolved.instances.into_iter().map(|instance| instance.id).collect()
}

/// The number of instances that the list of services counts as up.
async fn up(server: &TestServer) -> u32 {
    let request = ListServicesRequest { namespace: "shop".to_owned(), ..Default::default() };
    let listed = server.discovery().list_services(request).await.expect("listed").into_inner();
    listed.services.iter().map(|service| service.up).sum()
}

/// Changes the status of an instance as an operator does.
async fn set_status(server: &TestServer, id: &str, status: Status) -> Status {
    let request = UpdateRequest {
        namespace: "shop".to_owned(),
        service: "orders".to_owned(),
        id: id.to_owned(),
        instance: Some(Instance { status: status.into(), ..Instance::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["status".to_owned()] }),
        ..UpdateRequest::default()
    };
    let updated = server.registry().update(request).await.expect("updated").into_inner();
    updated.instance.expect("an instance").status()
}

/// A namespace in which 39 of 40 leases have expired: 13 instances are removed, 26 are held.
struct MassExpiry {
    server: TestServer,
    /// By the numbers that are the ids.
    leases: Vec<u64>,
    shop: Follower,
    held: BTreeSet<String>,
}

impl MassExpiry {
    /// Waits for the expiry. Only instance 00 renews its lease.
    async fn new() -> Self {
        let server = TestServer::start().await;
        let mut leases = Vec::new();
        for number in 0..40 {
            leases.push(register(&server, "shop", &format!("{number:02}")).await);
        }
        register(&server, "elsewhere", "a").await;
        let mut discovery = server.discovery();
        let mut shop = Follower::ready(&mut discovery, watch_of_all("shop")).await;
        let mut elsewhere = Follower::ready(&mut discovery, watch_of_all("elsewhere")).await;
        let expiry = async {
            // The 13th removal is more than 30 % of the 40.
            let (removed, held) = losses(&mut shop, 39).await;
            assert_eq!((removed.len(), held.len()), (13, 26));
            assert!(!removed.contains("00") && !held.contains("00"), "it heartbeats");
            let alone = elsewhere.next_change().await;
            assert_eq!((alone.kind(), alone.reason()), (ChangeKind::Removed, ChangeReason::Expired));
            held
        };
        let held = renewing(&server, vec![leases[0]], expiry).await;
        Self { server, leases, shop, held }
    }

    /// A held instance that was up.
    fn suspect(&self) -> String {
        let is_up = |id: &&String| declared(id) == Status::Up;
        self.held.iter().find(is_up).expect("one that was up").clone()
    }
}

/// Runs a future while leases are renewed.
async fn renewing<T>(server: &TestServer, leases: Vec<u64>, future: impl Future<Output = T>) -> T {
    tokio::select! {
        output = future => output,
        () = keep_alive(server, leases) => unreachable!("it has no end"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_stand_in_for_instances_that_were_up() {
    let MassExpiry { server, leases, held, .. } = MassExpiry::new().await;
    let checks = async {
        let mut expected: BTreeSet<_> =
            held.iter().filter(|id| declared(id) == Status::Up).cloned().collect();
        expected.insert("00".to_owned());
        assert!((2..27).contains(&expected.len()), "some are up, some are not: {held:?}");
        assert_eq!(callable(&server).await, expected);
        assert_eq!(up(&server).await as usize, expected.len());

        let [protection] = &server.status().await.protection[..] else { panic!("one namespace") };
        assert_eq!((protection.namespace.as_str(), protection.held), ("shop", 26));
        let why = "13 of 40 leases expired or lost their stream within 2s";
        assert_eq!(protection.why, why);
        let seconds = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
        let held_for = seconds(protection.until) - seconds(protection.since);
        assert!((599..=605).contains(&held_for), "{held_for} s");
    };
    renewing(&server, vec![leases[0]], checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_suspect_gets_no_traffic_and_stays_held() {
    let expiry = MassExpiry::new().await;
    let suspect = expiry.suspect();
    let MassExpiry { server, leases, mut shop, .. } = expiry;
    let checks = async {
        assert_eq!(set_status(&server, &suspect, Status::Draining).await, Status::Draining);
        assert_eq!(status(&shop.next_change().await), Status::Draining);
        assert!(!callable(&server).await.contains(&suspect));
        assert_eq!(set_status(&server, &suspect, Status::Up).await, Status::Suspect);
        assert_eq!(status(&shop.next_change().await), Status::Suspect);
        assert!(callable(&server).await.contains(&suspect));
        assert_eq!(server.status().await.protection[0].held, 26);
    };
    renewing(&server, vec![leases[0]], checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_restores_the_status_and_a_release_evicts_the_rest() {
    let MassExpiry { server, leases, mut shop, held } = MassExpiry::new().await;
    let mut returned = vec![leases[0]];
    let renewals = async {
        for wanted in [Status::Up, Status::Draining, Status::Starting, Status::Down] {
            let Some(back) = held.iter().find(|id| declared(id) == wanted) else { continue };
            let lease = leases[back.parse::<usize>().expect("a number")];
            assert!(heartbeat(&server, vec![lease]).await.is_empty());
            returned.push(lease);
            let change = shop.next_change().await;
            assert_eq!((id(&change), change.kind()), (back.clone(), ChangeKind::Updated));
            assert_eq!(status(&change), wanted);
        }
    };
    renewing(&server, vec![leases[0]], renewals).await;
    assert!(returned.len() > 2, "some that are not up are held: {held:?}");

    let release = async {
        let request = ReleaseProtectionRequest { namespace: "shop".to_owned() };
        let released = server.admin().release_protection(request.clone()).await.expect("released");
        let still_held = held.len() + 1 - returned.len();
        assert_eq!(released.into_inner().evicted, still_held as u64);
        let mut evicted = BTreeSet::new();
        for change in shop.next_changes(still_held).await {
            let expected = (ChangeKind::Removed, ChangeReason::Evicted);
            assert_eq!((change.kind(), change.reason()), expected);
            evicted.insert(id(&change));
        }
        assert!(evicted.is_subset(&held));
        assert_eq!(server.status().await.protection, []);
        let again = server.admin().release_protection(request).await.expect("released");
        assert_eq!(again.into_inner().evicted, 0, "none is held any more");
        let left = resolve_all_in(&mut server.discovery(), "shop", "orders").await.instances;
        assert_eq!(left.len(), returned.len());
    };
    renewing(&server, returned.clone(), release).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_instances_are_removed_when_the_hold_ends() {
    let hold = Duration::from_secs(1);
    let limits = Limits { protection_hold_max: hold, ..Limits::default() };
    let server = TestServer::start_with(limits).await;
    for number in 0..12 {
        register(&server, "shop", &format!("{number:02}")).await;
    }
    let mut shop = Follower::ready(&mut server.discovery(), watch_of_all("shop")).await;
    let (removed, held) = losses(&mut shop, 12).await;
    assert_eq!((removed.len(), held.len()), (10, 2), "ten are always too few");
    let (gone, _) = losses(&mut shop, 2).await;
    assert_eq!(gone, held);
    assert_eq!(server.status().await.protection, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_streams_count_for_protection() {
    let server = TestServer::start().await;
    let mut leases = Vec::new();
    for number in 0..20 {
        let instance = Instance {
            namespace: "shop".to_owned(),
            ..instance("orders", &format!("{number:02}"))
        };
        let request = RegisterRequest {
            ttl: Some(millis(60_000)),
            disconnect_grace: Some(millis(200)),
            ..register_request(instance)
        };
        let registered = server.registry().register(request).await.expect("registered");
        leases.push(registered.into_inner().lease_id);
    }
    let mut shop = Follower::ready(&mut server.discovery(), watch_of_all("shop")).await;
    let (requests, outgoing) = mpsc::channel(1);
    let stream = server.registry().keep_alive(ReceiverStream::new(outgoing)).await.expect("open");
    let mut answers = stream.into_inner();
    let request = KeepAliveRequest { lease_ids: leases.clone() };
    requests.send(request).await.expect("sent");
    soon("an answer", answers.message()).await.expect("open").expect("an answer");
    drop((requests, answers));

    let (mut removed, mut suspects) = (0, 0);
    for change in shop.next_changes(20).await {
        match (change.kind(), change.reason()) {
            (ChangeKind::Removed, ChangeReason::Disconnected) => removed += 1,
            (ChangeKind::Updated, _) if status(&change) == Status::Suspect => suspects += 1,
            _ => panic!("{change:?}"),
        }
    }
    assert_eq!((removed, suspects), (10, 10));
    // They are still registered: each renewal is accepted and ends the suspicion.
    let unknown = heartbeat(&server, leases).await;
    assert_eq!(unknown.len(), 10);
    let returned = shop.next_changes(10).await;
    assert!(returned.iter().all(|change| status(change) == Status::Up));
    assert_eq!(server.status().await.protection, []);
}
