//! What becomes of leases that run out with many others.

use std::{collections::BTreeSet, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use waypost::model::Limits;

use crate::support::{
    Follower, TestServer, instance, millis,
    proto::{
        Change, ChangeKind, ChangeReason, HeartbeatRequest, Instance, KeepAliveRequest,
        RegisterRequest, ReleaseProtectionRequest, ResolveRequest, Status, WatchRequest,
    },
    register_request, resolve_all_in, soon,
};

const TTL: Duration = Duration::from_secs(2);

async fn register(server: &TestServer, namespace: &str, id: &str) -> u64 {
    let instance = Instance {
        namespace: namespace.to_owned(),
        status: Status::Draining.into(),
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

/// Renews a lease for as long as it is held.
async fn keep_alive(server: &TestServer, lease: u64) {
    loop {
        assert!(heartbeat(server, vec![lease]).await.is_empty(), "it lives");
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

/// Takes in so many changes; the ids of those who were removed and of those who became suspects.
async fn losses(follower: &mut Follower, count: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut removed, mut suspects) = (BTreeSet::new(), BTreeSet::new());
    for change in follower.next_changes(count).await {
        match (change.kind(), change.reason()) {
            (ChangeKind::Removed, ChangeReason::Expired) => removed.insert(id(&change)),
            (ChangeKind::Updated, ChangeReason::Unspecified) => {
                assert_eq!(status(&change), Status::Suspect);
                suspects.insert(id(&change))
            }
            _ => panic!("{change:?}"),
        };
    }
    (removed, suspects)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_loses_many_at_once_keeps_most_as_suspects() {
    let server = TestServer::start().await;
    let mut leases = Vec::new();
    for number in 0..40 {
        leases.push(register(&server, "shop", &format!("{number:02}")).await);
    }
    register(&server, "elsewhere", "a").await;
    let mut discovery = server.discovery();
    let mut shop = Follower::ready(&mut discovery, watch_of_all("shop")).await;
    let mut elsewhere = Follower::ready(&mut discovery, watch_of_all("elsewhere")).await;
    let alive = leases[0];
    let scenario = async {
        // More than 30 % of the 40 are gone with the 13th; 26 are left of those that are silent.
        let (removed, suspects) = losses(&mut shop, 39).await;
        assert_eq!((removed.len(), suspects.len()), (13, 26));
        assert!(!removed.contains("00") && !suspects.contains("00"), "it heartbeats");
        let alone = elsewhere.next_change().await;
        assert_eq!((alone.kind(), alone.reason()), (ChangeKind::Removed, ChangeReason::Expired));

        let callable = ResolveRequest {
            namespace: "shop".to_owned(),
            service: "orders".to_owned(),
            ..ResolveRequest::default()
        };
        let callable = discovery.resolve(callable).await.expect("resolved").into_inner().instances;
        assert_eq!(callable.len(), 26, "suspects take traffic, those who drain do not");

        let [protection] = &server.status().await.protection[..] else { panic!("one namespace") };
        assert_eq!((protection.namespace.as_str(), protection.held), ("shop", 26));
        let why = "13 of 40 leases ran out or lost their stream within 2s";
        assert_eq!(protection.why, why);
        let seconds = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
        let held_for = seconds(protection.until) - seconds(protection.since);
        assert!((599..=605).contains(&held_for), "{held_for} s");

        // A renewal gives back the status that it had.
        let number: usize = suspects.first().expect("a suspect").parse().expect("a number");
        assert!(heartbeat(&server, vec![leases[number]]).await.is_empty());
        let back = shop.next_change().await;
        assert_eq!(id(&back), format!("{number:02}"));
        assert_eq!((back.kind(), status(&back)), (ChangeKind::Updated, Status::Draining));
        (leases[number], suspects)
    };
    let (returned, suspects) = tokio::select! {
        outcome = scenario => outcome,
        () = keep_alive(&server, alive) => unreachable!("it has no end"),
    };

    let release = async {
        let request = ReleaseProtectionRequest { namespace: "shop".to_owned() };
        let released = server.admin().release_protection(request.clone()).await.expect("released");
        assert_eq!(released.into_inner().evicted, 25);
        let mut evicted = BTreeSet::new();
        for change in shop.next_changes(25).await {
            let expected = (ChangeKind::Removed, ChangeReason::Evicted);
            assert_eq!((change.kind(), change.reason()), expected);
            evicted.insert(id(&change));
        }
        assert!(evicted.is_subset(&suspects));
        assert_eq!(server.status().await.protection, []);
        let again = server.admin().release_protection(request).await.expect("released");
        assert_eq!(again.into_inner().evicted, 0, "there is nobody left");
        let left = resolve_all_in(&mut discovery, "shop", "orders").await.instances;
        assert_eq!(left.len(), 2);
    };
    tokio::select! {
        () = release => {},
        () = keep_alive(&server, alive) => unreachable!("it has no end"),
        () = keep_alive(&server, returned) => unreachable!("it has no end"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_are_removed_when_the_hold_ends() {
    let hold = Duration::from_secs(1);
    let limits = Limits { protection_hold_max: hold, ..Limits::default() };
    let server = TestServer::start_with(limits).await;
    for number in 0..12 {
        register(&server, "shop", &format!("{number:02}")).await;
    }
    let mut shop = Follower::ready(&mut server.discovery(), watch_of_all("shop")).await;
    let (removed, suspects) = losses(&mut shop, 12).await;
    assert_eq!((removed.len(), suspects.len()), (10, 2), "ten are always too few");
    let (gone, _) = losses(&mut shop, 2).await;
    assert_eq!(gone, suspects);
    assert_eq!(server.status().await.protection, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_together_are_losses_too() {
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
    // They are not gone: each renewal is taken, and ends the suspicion.
    let unknown = heartbeat(&server, leases).await;
    assert_eq!(unknown.len(), 10);
    let returned = shop.next_changes(10).await;
    assert!(returned.iter().all(|change| status(change) == Status::Up));
    assert_eq!(server.status().await.protection, []);
}
