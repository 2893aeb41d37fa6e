//! The pure registry and the engine around it, without a network: changes, renewals, expiry, and
//! one change to many watches. `cargo bench --bench registry`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use divan::{Bencher, black_box, counter::ItemsCount};
use tokio::runtime::Runtime;
use waypost::{
    auth::{Caller, WatchTarget},
    clock::Clock,
    engine::{Engine, WatchEvent},
    model::{
        Content, Filter, Host, InstanceId, LeaseId, LeaseTerms, Limits, Metadata, Name, Parts,
        ServiceKey, Status, Tick, Version, WallTime,
    },
    registry::{Command, LeaseSeed, Now, Outcome, Patch, Registry, Target},
    store::MemoryStore,
};
use waypost_serving::tasks::Tasks;

const TERMS: LeaseTerms =
    LeaseTerms { ttl: Duration::from_secs(15), disconnect_grace: Duration::from_secs(3) };
/// Instances of a service.
const A_SERVICE: usize = 20;
/// Commands of a turn.
const A_TURN: usize = 64;

fn main() {
    divan::main();
}

fn now(millis: u64) -> Now {
    Now { tick: Tick(millis), wall: WallTime(1_700_000_000_000 + millis) }
}

fn service(index: usize) -> ServiceKey {
    let service = Name::parse(&format!("service-{index}"), 128).unwrap();
    ServiceKey { namespace: Name::default_namespace(), service }
}

fn parts(index: usize) -> Parts {
    let metadata: BTreeMap<String, String> =
        (0..4).map(|entry| (format!("key-{entry}"), format!("value-{entry}-{index}"))).collect();
    Parts {
        host: Host::parse("10.0.0.1", 253).unwrap(),
        port: 8080.try_into().unwrap(),
        ports: Box::default(),
        status: Status::Up,
        zone: Some(Name::parse("zone-a", 128).unwrap()),
        version: Version::parse("1.2.3", 128).unwrap(),
        weight: 100,
        metadata: Metadata::new(&metadata),
    }
}

fn register(index: usize) -> Command {
    Command::Register {
        service: service(index / A_SERVICE),
        id: InstanceId::parse(&format!("0190c5c2-7c1f-7a5e-9b1d-{index:012}"), 256).unwrap(),
        content: Content::from(&parts(index)),
        terms: TERMS,
        instances_max: None,
    }
}

/// Plans and absorbs one turn's commands.
fn turn(registry: &mut Registry, commands: impl IntoIterator<Item = Command>, millis: u64) {
    let mut plan = registry.plan(now(millis));
    for command in commands {
        black_box(plan.decide(command)).unwrap();
    }
    for transition in plan.into_transitions() {
        black_box(registry.absorb(transition, Tick(millis)));
    }
}

/// A registry with instances, and their leases.
fn filled(instances: usize) -> (Registry, Vec<LeaseId>) {
    let mut registry = Registry::new(0, LeaseSeed::repeatable(7), &Limits::default());
    let mut leases = Vec::with_capacity(instances);
    for first in (0..instances).step_by(A_TURN) {
        let mut plan = registry.plan(now(0));
        for index in first..instances.min(first + A_TURN) {
            if let Ok(Outcome::Registered { lease, .. }) = plan.decide(register(index)) {
                leases.push(lease);
            }
        }
        for transition in plan.into_transitions() {
            registry.absorb(transition, Tick(0));
        }
    }
    (registry, leases)
}

/// Registrations of 100,000 new instances, 64 a turn.
#[divan::bench(sample_count = 10)]
fn register_100_000(bencher: Bencher<'_, '_>) {
    let count = 100_000;
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let commands: Vec<_> = (0..count).map(register).collect();
            (Registry::new(0, LeaseSeed::repeatable(7), &Limits::default()), commands)
        })
        .bench_local_values(|(mut registry, commands)| {
            let mut commands = commands.into_iter().peekable();
            while commands.peek().is_some() {
                turn(&mut registry, commands.by_ref().take(A_TURN), 1);
            }
            registry
        });
}

/// Updates among 100,000 instances, each changing the weight, 64 a turn.
#[divan::bench(sample_count = 10)]
fn update_100_000(bencher: Bencher<'_, '_>) {
    let (mut registry, leases) = filled(100_000);
    let mut weight = 100;
    bencher.counter(ItemsCount::new(leases.len())).bench_local(|| {
        weight += 1;
        for leases in leases.chunks(A_TURN) {
            let update = |lease: &LeaseId| Command::Update {
                target: Target::Lease(*lease),
                patch: Patch { weight: Some(weight), ..Patch::default() },
            };
            turn(&mut registry, leases.iter().map(update), 2);
        }
    });
}

/// Renewals in random order with the given number of live leases.
#[divan::bench(args = [1_000, 1_000_000], sample_count = 20)]
fn renew(bencher: Bencher<'_, '_>, live: usize) {
    let (registry, mut leases) = filled(live);
    let table = registry.lease_table();
    fastrand::Rng::with_seed(1).shuffle(&mut leases);
    let mut millis = 0;
    bencher.counter(ItemsCount::new(1_000_000_usize)).bench_local(|| {
        let mut renewed = 0;
        for _ in 0..1_000_000 / leases.len() {
            millis += 1;
            renewed += leases.iter().filter(|lease| table.renew(**lease, Tick(millis))).count();
        }
        assert_eq!(renewed, 1_000_000);
    });
}

/// Judging 100,000 leases of one namespace that ran out in the same moment: 30 % are removed, the
/// others become suspects.
#[divan::bench(sample_count = 10)]
fn expire_100_000(bencher: Bencher<'_, '_>) {
    let count = 100_000;
    bencher.counter(ItemsCount::new(count)).with_inputs(|| filled(count).0).bench_local_values(
        |mut registry| {
            let millis = 20_000;
            loop {
                let (due_leases, more) = registry.take_due(Tick(millis), 2048);
                let commands = due_leases.into_iter().map(Command::Enforce);
                turn(&mut registry, commands, millis);
                if !more {
                    break;
                }
            }
            assert_eq!(registry.instances(), count * 7 / 10 - 1);
            registry
        },
    );
}

/// Moving the wheel past 100,000 renewed leases: the cost of liveness while nothing expires.
#[divan::bench(sample_count = 10)]
fn look_at_100_000_renewed(bencher: Bencher<'_, '_>) {
    let count = 100_000;
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let (registry, leases) = filled(count);
            let table = registry.lease_table();
            assert!(leases.iter().all(|lease| table.renew(*lease, Tick(14_000))));
            registry
        })
        .bench_local_values(|mut registry| {
            while registry.take_due(Tick(20_000), 2048).1 {}
            assert_eq!(registry.instances(), count);
            registry
        });
}

/// From the request of a change until every watch of its service has received it.
#[divan::bench(args = [1, 1_000], sample_count = 50)]
fn change_to_watches(bencher: Bencher<'_, '_>, watches: usize) {
    let runtime = Runtime::new().unwrap();
    let engine = runtime.block_on(async {
        let (tasks, (store, nothing)) = (Tasks::default(), MemoryStore::open());
        Engine::start(
            store,
            nothing,
            LeaseSeed::repeatable(1),
            &Limits::default(),
            Clock::start(),
            &tasks,
        )
        .unwrap()
    });
    let (told, mut heard) = tokio::sync::mpsc::channel(watches);
    let tasks = Tasks::default();
    for _ in 0..watches {
        let subjects = WatchTarget::Services([Arc::new(service(0))].into());
        let permit = Caller::unrestricted().watch(subjects).unwrap();
        let _runtime = runtime.enter();
        let mut watch = engine.watch(permit, Filter::default(), None);
        let told = told.clone();
        tasks.spawn("watch", async move {
            loop {
                let (event, _) = watch.next().await;
                if !matches!(event, WatchEvent::Idle) && told.send(()).await.is_err() {
                    break;
                }
            }
        });
    }
    let mut all_heard = async || {
        for _ in 0..watches {
            heard.recv().await;
        }
    };
    runtime.block_on(all_heard());
    let mut index = 0;
    bencher.counter(ItemsCount::new(watches)).bench_local(|| {
        runtime.block_on(async {
            let id = InstanceId::parse(&format!("instance-{index}"), 256).unwrap();
            index = (index + 1) % A_SERVICE;
            let content = Content::from(&Parts { weight: fastrand::u32(..), ..parts(index) });
            let permit = Caller::unrestricted().register(service(0), &id, &content.host()).unwrap();
            engine.register(permit, id, content, TERMS).await.unwrap();
            all_heard().await;
        });
    });
    drop(heard);
}
