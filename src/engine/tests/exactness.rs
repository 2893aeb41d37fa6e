//! Tests of watches under concurrent writers: their events fold to the state at their cursor.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fastrand::Rng;
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::timeout,
};
use waypost_core::testing::{content, id, key, name, terms, weight, zone};

use super::{
    TestStore, follower::Follower, in_zone, may_register, may_watch, named, small_log, start,
    start_with, with_seeds_async,
};
use crate::{
    auth::WatchTarget,
    engine::{Engine, EngineError, WatchEvent},
    model::{Change, ChangeKind, Filter, Instance, RemovalReason, Revision},
    registry::{Outcome, Target},
};

const SERVICES: [&str; 5] = ["n/a", "n/b", "n/c", "m/a", "m/b"];

/// Writes at random. Refusals are expected: other writers change the same instances.
async fn write(engine: Engine, mut random: Rng, count: usize) {
    let mut leases = Vec::new();
    for _ in 0..count {
        let service = key(SERVICES[random.usize(..5)]);
        let instance = id(&format!("i{}", random.u8(..6)));
        let by_lease = random.choice(&leases).copied().filter(|_| random.bool());
        let target = by_lease
            .map_or_else(|| Target::Identity(service.clone(), instance.clone()), Target::Lease);
        let patch = match random.u8(..4) {
            0 => zone("z"),
            1 => zone("y"),
            _ => weight(random.u32(..3)),
        };
        let done = match random.u8(..8) {
            0..=2 => {
                // Some TTLs are so short that they pass during the test.
                let terms = terms(if random.bool() { 3_600_000 } else { random.u64(1..40) });
                engine
                    .register(may_register(service), instance, content(random.u16(1..3)), terms)
                    .await
            }
            3..=5 => engine.update_target(target, patch).await,
            _ => engine.deregister_target(target).await,
        };
        match done {
            Ok(Outcome::Registered { lease, instance, revision }) => {
                leases.push(lease);
                assert!(revision >= instance.modified);
            }
            Ok(_) | Err(EngineError::Refused(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_of_every_watch_fold_to_the_state_at_its_cursor() {
    with_seeds_async(2, async |mut random| {
        for log_changes_max in [4, 60, 65_536] {
            let followers = follow_writers(&mut random, log_changes_max).await;
            for follower in followers.iter().filter(|_| log_changes_max == 65_536) {
                assert_eq!(
                    follower.snapshots, 1,
                    "no watch falls behind a log that has everything"
                );
                if follower.filter.is_empty() {
                    assert_eq!(follower.changes, follower.concerning(), "each change once");
                }
            }
        }
    })
    .await;
}

/// Runs writers and watches of all kinds until the writers are done.
async fn follow_writers(random: &mut Rng, log_changes_max: usize) -> Vec<Follower> {
    let store = TestStore::default();
    let test = start_with(store.clone(), &small_log(log_changes_max));
    let (ended, end) = watch::channel(None);
    let mut followers = JoinSet::new();
    for _ in 0..3 {
        let namespace = || WatchTarget::Namespace(name("n"));
        let followed = [
            (namespace(), Filter::default()),
            (namespace(), in_zone("z")),
            (named(&["n/a"]), Filter::default()),
            (named(&["n/a", "m/b", "m/none"]), Filter::default()),
            (named(&["n/b", "m/a"]), in_zone("y")),
        ];
        for (subjects, filter) in followed {
            let mut follower = Follower::new(&test, &store.committed, subjects, filter);
            // All start with the empty registry, however they are scheduled later.
            follower.receive().await;
            followers.spawn(follower.run(end.clone(), Rng::with_seed(random.u64(..))));
        }
    }
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let random = Rng::with_seed(random.u64(..));
        writers.spawn(write(test.engine.clone(), random, 1_000));
    }
    let all = async {
        writers.join_all().await;
        ended.send(Some(test.revision())).expect("followers still run");
        followers.join_all().await
    };
    timeout(Duration::from_secs(60), all).await.expect("it ends")
}

/// Services with one instance that is added and removed: they are listed, emptied and dropped all
/// the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn snapshots_of_a_changing_namespace_are_exact() {
    with_seeds_async(4, async |mut random| {
        let store = TestStore::default();
        let limits = small_log([3, 1_000][random.usize(..2)]);
        let test = start_with(store.clone(), &limits);
        let mut writers = JoinSet::new();
        for writer in 0..3 {
            let engine = test.engine.clone();
            writers.spawn(async move {
                for round in 0..600 {
                    let service = key(&format!("n/{writer}-{}", round % 3));
                    let identity = Target::Identity(service.clone(), id("i"));
                    let done = engine
                        .register(may_register(service), id("i"), content(1), terms(60_000))
                        .await;
                    assert!(done.is_ok());
                    assert!(engine.deregister_target(identity).await.is_ok());
                }
            });
        }
        let mut reading = JoinSet::new();
        for _ in 0..3 {
            let subjects = WatchTarget::Namespace(name("n"));
            let mut follower = Follower::new(&test, &store.committed, subjects, Filter::default());
            reading.spawn(async move {
                while follower.cursor < Revision(3_600) {
                    let subjects = follower.subjects.clone();
                    follower.watch =
                        follower.engine.watch(may_watch(subjects), Filter::default(), None);
                    follower.receive().await;
                    yield_now().await;
                }
            });
        }
        let all = async {
            writers.join_all().await;
            reading.join_all().await;
        };
        timeout(Duration::from_secs(60), all).await.expect("it ends");
    })
    .await;
}

/// Captures a namespace at the moment when a service without instances is not listed any more and
/// the revision of that removal is not published yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn snapshot_during_the_removal_of_a_service_is_exact() {
    let test = start();
    test.register("n/s", "a", 60_000).await;
    let shared = Arc::clone(&test.engine.shared);
    // The worker is idle: do its steps by hand, up to publishing the revision.
    let service = shared.directory.service(&key("n/s")).unwrap();
    let before = Arc::clone(service.roster.instances().next().unwrap());
    let removed = Arc::new(Instance { modified: Revision(2), ..Instance::clone(&before) });
    let kind = ChangeKind::Removed(RemovalReason::Evicted);
    let change = Arc::new(Change { kind, instance: removed });
    let _evicted = shared.log.write().append(change, Revision(1));
    let key = Arc::clone(&service.key);
    let roster = crate::registry::Roster::default();
    let (revision, number) = (Revision(2), service.number);
    shared.directory.put(Arc::new(crate::registry::Service { key, roster, revision, number }));
    let subjects = WatchTarget::Namespace(name("n"));
    let mut watch = test.engine.watch(may_watch(subjects), Filter::default(), None);
    let (captured, capture) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || captured.send(watch.next().now_or_never()));
        // It may wait for the revision or use the previous one; either must be exact.
        let early = capture.recv_timeout(Duration::from_millis(100)).ok();
        shared.published.store(2, Ordering::Release);
        let event = early.or_else(|| capture.recv().ok()).flatten();
        let Some((WatchEvent::Snapshot { chunks, last: true }, cursor)) = event else {
            panic!("{event:?}");
        };
        let instances: usize = chunks.iter().map(|chunk| chunk.instances().len()).sum();
        assert_eq!(instances, usize::from(cursor.revision < Revision(2)), "at {cursor:?}");
    });
}
