//! Many watchers of all kinds while several writers churn: at the end every one of them has exactly
//! what the registry has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{
    sync::{Barrier, watch},
    task::JoinSet,
};
use tonic::transport::{Channel, Endpoint};
use waypost::model::Limits;
use waypost_client::proto::{
    DeregisterRequest, Filter, Instance, UpdateRequest, WatchRequest,
    discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::{
    registry::{Identity, identity, instance_in, register, resolve_all_in, zone_filter},
    seed::seed,
    watch::Follower,
};

use crate::support::TestServer;

const WATCHERS: usize = 50;
const WRITERS: u64 = 4;
const WRITES: usize = 500;
const NAMESPACES: [&str; 2] = ["red", "blue"];
const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];
const ZONES: [&str; 3] = ["", "z1", "z2"];

/// One writer's instances by identity, with their leases.
type Own = BTreeMap<Identity, u64>;

/// Adds, replaces, updates, drains and removes; returns what it left.
async fn churn(
    mut registry: RegistryClient<Channel>,
    writer: u64,
    mut random: fastrand::Rng,
    half: Arc<Barrier>,
) -> Own {
    let mut own = Own::new();
    for write in 0..WRITES {
        if write == WRITES / 2 {
            half.wait().await;
        }
        let picked = (!own.is_empty()).then(|| random.usize(..own.len()));
        let picked = picked.and_then(|nth| own.iter().nth(nth));
        let picked = picked.map(|(key, lease)| (key.clone(), *lease));
        match (random.u8(..10), picked) {
            (4..=6, Some((_, lease_id))) => {
                let zone = random.choice(ZONES).unwrap_or_default().to_owned();
                let weight = Some(random.u32(..3));
                let request = UpdateRequest {
                    lease_id,
                    instance: Some(Instance { zone, weight, ..Instance::default() }),
                    update_mask: Some(prost_types::FieldMask {
                        paths: vec!["zone".to_owned(), "weight".to_owned()],
                    }),
                    ..UpdateRequest::default()
                };
                registry.update(request).await.expect("updated");
            }
            (7, Some((key, lease_id))) => {
                let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
                registry.deregister(request).await.expect("gone");
                own.remove(&key);
            }
            (8, Some((key, _))) => {
                let (namespace, service, id) = key.clone();
                let request = DeregisterRequest { lease_id: 0, namespace, service, id };
                registry.deregister(request).await.expect("gone");
                own.remove(&key);
            }
            _ => {
                let service = random.choice(SERVICES).unwrap_or_default();
                let zone = random.choice(ZONES).unwrap_or_default();
                let version = if random.bool() { "1" } else { "2" };
                // Few ids, so that many registrations are take-overs.
                let id = format!("{writer}-{}", random.u8(..12));
                let made = Instance {
                    namespace: random.choice(NAMESPACES).unwrap_or_default().to_owned(),
                    metadata: BTreeMap::from([("padding".to_owned(), "x".repeat(1_000))]),
                    ..instance_in(service, &id, zone, version)
                };
                let key = identity(&made);
                own.insert(key, register(&mut registry, made).await.lease_id);
            }
        }
    }
    own
}

/// The subject of the nth watcher.
fn request(nth: usize) -> WatchRequest {
    let services = match nth % 5 {
        0 => vec![],
        1 => vec![SERVICES[nth % 3]],
        2 => vec!["a", "c", "e"],
        3 => SERVICES.to_vec(),
        _ => vec!["b", "nothing"],
    };
    let filter = match nth % 3 {
        0 => None,
        1 => Some(zone_filter("z1")),
        _ => Some(Filter {
            zones: vec!["z2".to_owned(), String::new()],
            versions: vec!["2".to_owned()],
            ..Filter::default()
        }),
    };
    WatchRequest {
        namespace: NAMESPACES[nth % 2].to_owned(),
        services: services.into_iter().map(str::to_owned).collect(),
        filter,
        resume: None,
    }
}

/// True where a watcher must see an instance.
fn concerns(request: &WatchRequest, instance: &Instance) -> bool {
    let filter = request.filter.clone().unwrap_or_default();
    instance.namespace == request.namespace
        && (request.services.is_empty() || request.services.contains(&instance.service))
        && (filter.zones.is_empty() || filter.zones.contains(&instance.zone))
        && (filter.versions.is_empty() || filter.versions.contains(&instance.version))
}

/// The pace of a watcher.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As fast as it can.
    Steady,
    /// Never between the first message and the last write.
    Pausing,
    /// Closes after every few messages and resumes from its cursor.
    Returning,
}

fn pace(nth: usize) -> Pace {
    match nth / 10 {
        0 | 1 => Pace::Steady,
        2 | 3 => Pace::Pausing,
        _ => Pace::Returning,
    }
}

/// A connection whose reader soon holds up its writer.
async fn narrow_channel(server: &TestServer) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).expect("a URI");
    endpoint.initial_stream_window_size(16 * 1024).connect().await.expect("connected")
}

/// Follows to the last revision, once that is known.
async fn follow(
    mut discovery: DiscoveryClient<Channel>,
    nth: usize,
    mut end: watch::Receiver<Option<u64>>,
) -> (WatchRequest, Follower) {
    let request = request(nth);
    let mut follower = Follower::ready(&mut discovery, request.clone()).await;
    if pace(nth) == Pace::Pausing {
        let _told = end.wait_for(Option::is_some).await.expect("an end is told");
    }
    let mut messages = 0;
    loop {
        let told = *end.borrow_and_update();
        if let Some(revision) = told {
            follower.reach(revision).await;
            return (request, follower);
        }
        tokio::select! {
            _ = follower.message() => messages += 1,
            _told = end.changed() => {}
        }
        // Not within a snapshot, which can't be resumed.
        if pace(nth) == Pace::Returning && messages % 7 == 6 && follower.is_complete() {
            let resumed = WatchRequest { resume: follower.cursor.clone(), ..request.clone() };
            let state = follower.state.clone();
            follower = Follower::resume(&mut discovery, resumed, state).await;
            messages += 1;
        }
    }
}

/// Returns all instances, of a registry at this revision.
async fn instances_at(server: &TestServer, revision: u64) -> Vec<Instance> {
    let mut instances = Vec::new();
    for namespace in NAMESPACES {
        for service in SERVICES {
            let read = resolve_all_in(&mut server.discovery(), namespace, service).await;
            assert_eq!(read.cursor.expect("a cursor").revision, revision);
            instances.extend(read.instances);
        }
    }
    instances
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_under_churn_end_with_the_state_of_the_registry() {
    let seed = seed();
    // A short log, so that pausing watchers fall behind it.
    let server = TestServer::start_with(Limits { log_changes_max: 200, ..Limits::default() }).await;
    let (tell_end, end) = watch::channel(None);
    let mut watchers = JoinSet::new();
    let mut late = Vec::new();
    for nth in 0..WATCHERS {
        let discovery = DiscoveryClient::new(narrow_channel(&server).await);
        let following = follow(discovery, nth, end.clone());
        // Every fifth starts after half of the writes.
        if nth % 5 == 3 {
            late.push(following);
        } else {
            watchers.spawn(async move { (nth, following.await) });
        }
    }

    let half = Arc::new(Barrier::new(usize::try_from(WRITERS).expect("few") + 1));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let random = fastrand::Rng::with_seed(seed.wrapping_add(writer));
        writers.spawn(churn(server.registry(), writer, random, Arc::clone(&half)));
    }
    half.wait().await;
    for (nth, following) in late.into_iter().enumerate() {
        watchers.spawn(async move { (nth * 5 + 3, following.await) });
    }
    let own: Vec<Own> = writers.join_all().await;
    let left: BTreeSet<Identity> = own.into_iter().flat_map(BTreeMap::into_keys).collect();
    let last = server.status().await.revision;
    assert!(last > 1_000, "{last} changes");
    tell_end.send(Some(last)).expect("the watchers wait");

    let held = instances_at(&server, last).await;
    assert_eq!(held.iter().map(identity).collect::<BTreeSet<_>>(), left, "as the writers left it");
    assert!(held.len() > 50, "{} instances", held.len());

    let mut restarted = 0;
    let mut seen = 0;
    for (nth, (request, follower)) in watchers.join_all().await {
        assert_eq!(follower.revision(), last);
        let expected: BTreeMap<_, _> = held
            .iter()
            .filter(|instance| concerns(&request, instance))
            .map(|instance| (identity(instance), instance.clone()))
            .collect();
        assert_eq!(follower.state, expected, "watcher {nth} (seed {seed}): {request:?}");
        restarted += usize::from(pace(nth) == Pace::Pausing && follower.snapshots > 1);
        seen += follower.changes.len();
    }
    eprintln!("{last} revisions, {seen} changes seen, {restarted} watchers started over");
    assert!(restarted > 0, "nobody fell behind the log");
    assert!(seen > 5_000, "{seen} changes seen");
}
