//! Faults one at a time, each with what it may do and what it must not.

use std::time::Duration;

use waypost::model::Limits;
use waypost_client::proto::Status;

use waypost_simulation::{
    Content, Identity, LeaseTerms, Link, Millis, Plan, REGISTRY, ReadingMode, Subject, World,
};

const NAMESPACE: &str = "alpha";
const SERVICE: &str = "orders";
const TTL_MS: Millis = 3_000;
const GRACE_MS: Millis = 1_000;

fn plan(nodes: usize) -> Plan {
    Plan { seed: 1, nodes, namespaces: vec![NAMESPACE], limits: Limits::default(), rules: None }
}

fn subject() -> Subject {
    Subject { namespace: NAMESPACE.to_owned(), ..Subject::default() }
}

fn identity(id: usize) -> Identity {
    let (namespace, service) = (NAMESPACE.to_owned(), SERVICE.to_owned());
    Identity { namespace, service, id: format!("id-{id:03}") }
}

fn content(note: &str) -> Content {
    let status = Status::Up;
    Content { status, weight: 100, zone: "a".to_owned(), note: note.to_owned() }
}

fn register(world: &mut World, node: usize, id: usize) -> usize {
    let terms = LeaseTerms { ttl_ms: TTL_MS, grace_ms: GRACE_MS };
    // Every third gets no traffic, for various reasons.
    let status = match id % 9 {
        2 => Status::Starting,
        5 => Status::Draining,
        8 => Status::Down,
        _ => Status::Up,
    };
    world.register(node, identity(id), terms, Content { status, ..content("first") })
}

/// A world with replicas and watchers on every node, long enough ago to be settled.
fn settled(plan: Plan, replicas_a_node: usize) -> World {
    let mut world = World::new(plan);
    for node in world.nodes() {
        world.view(node, NAMESPACE, &[SERVICE]);
        world.watch(node, subject(), ReadingMode::Prompt, 100);
        for number in 0..replicas_a_node {
            register(&mut world, node, node * 100 + number);
        }
    }
    run(&mut world, 25_000);
    assert_eq!(world.members(NAMESPACE), world.nodes().len() * replicas_a_node);
    world
}

fn run(world: &mut World, millis: Millis) {
    world.run(millis);
    check(world);
}

fn check(world: &World) {
    let violation = world.violation();
    assert!(violation.is_none(), "{}", violation.unwrap_or_default());
}

/// Nothing goes wrong for a while, and in the end everything is right.
fn peace(world: &mut World) {
    world.heal();
    run(world, 45_000);
    world.look_at_peace();
    check(world);
}

#[test]
fn registry_paused_for_many_ttls_removes_no_instance() {
    let mut world = settled(plan(3), 3);
    for pauses in [1, 3, 10] {
        let before = world.revision();
        world.pause(REGISTRY, pauses * TTL_MS);
        run(&mut world, pauses * TTL_MS + 20_000);
        assert_eq!(world.revision(), before, "nobody was told of anything");
    }
    peace(&mut world);
}

#[test]
fn short_stalls_of_the_registry_remove_no_instance() {
    let mut world = settled(plan(3), 3);
    let before = world.revision();
    for stumble_ms in [50, 90, 110, 300, 700, 1_200, 2_000, 500, 60, 1_900, 1_900, 1_900] {
        world.pause(REGISTRY, stumble_ms);
        run(&mut world, stumble_ms + 400);
    }
    assert_eq!(world.revision(), before);
    peace(&mut world);
}

#[test]
fn instances_register_again_within_a_ttl_of_a_restart() {
    let mut world = settled(plan(3), 3);
    world.kill_registry();
    run(&mut world, 2_000);
    world.start_registry();
    // Until the longest wait of a client is over, and a heartbeat found its lease unknown.
    run(&mut world, 12_000);
    assert_eq!(world.members(NAMESPACE), 9);
    peace(&mut world);
}

#[test]
fn simultaneous_reconnects_lose_no_instance() {
    let mut world = settled(plan(4), 2);
    let before = world.revision();
    for _ in 0..3 {
        world.nodes().for_each(|node| world.reset(node));
        run(&mut world, 4_000);
    }
    assert_eq!(world.revision(), before);
    peace(&mut world);
}

#[test]
fn crashed_replica_is_removed_within_its_grace() {
    let mut world = settled(plan(2), 2);
    let number = world.replicas_on(2).next().unwrap();
    let killed_at = world.now;
    world.kill(number);
    run(&mut world, GRACE_MS - 100);
    assert_eq!(world.members(NAMESPACE), 4, "the grace has not passed");
    run(&mut world, 400);
    assert_eq!(world.members(NAMESPACE), 3, "{} ms after the end", world.now - killed_at);
    peace(&mut world);
}

#[test]
fn replica_without_power_is_removed_within_its_ttl() {
    let mut world = settled(plan(3), 2);
    world.cut_power(3);
    run(&mut world, TTL_MS / 3);
    assert_eq!(world.members(NAMESPACE), 6, "nobody said anything");
    run(&mut world, TTL_MS);
    assert_eq!(world.members(NAMESPACE), 4);
    peace(&mut world);
}

#[test]
fn partition_shorter_than_the_ttl_removes_no_instance() {
    let mut world = settled(plan(3), 2);
    let before = world.revision();
    let cut = Link { cut: true, ..Link::default() };
    for _ in 0..3 {
        world.set_links(2, "partition", &cut);
        run(&mut world, TTL_MS / 3);
        world.set_links(2, "healed", &Link::default());
        run(&mut world, 15_000);
    }
    assert_eq!(world.revision(), before);
    peace(&mut world);
}

#[test]
fn one_way_partition_removes_only_silenced_instances() {
    let mut world = settled(plan(3), 2);
    let cut = Link { cut: true, ..Link::default() };
    world.set_link(2, REGISTRY, "one-way partition", cut.clone());
    run(&mut world, TTL_MS + 1_000);
    assert_eq!(world.members(NAMESPACE), 4, "what they say does not arrive");
    world.set_links(2, "healed", &Link::default());
    run(&mut world, 25_000);
    assert_eq!(world.members(NAMESPACE), 6, "they find back by themselves");
    world.set_link(REGISTRY, 3, "one-way partition", cut);
    run(&mut world, 20_000);
    peace(&mut world);
}

/// Cuts half of the nodes off, with more replicas on them than a namespace may lose.
fn half_lost(hold_max_s: u64) -> World {
    let protection_hold_max = Duration::from_secs(hold_max_s);
    let limits = Limits { protection_hold_max, ..Limits::default() };
    let mut world = settled(Plan { limits, ..plan(4) }, 10);
    for node in [2, 3] {
        world.set_links(node, "partition", &Link { cut: true, ..Link::default() });
    }
    run(&mut world, TTL_MS + 1_000);
    // More than 30 % of 40 are too many: the first 12 or 13 are removed, the others held.
    let (members, held) = (world.members(NAMESPACE), world.held(NAMESPACE));
    assert!((27..=28).contains(&members), "{members} are there, {held} of them held");
    assert_eq!(held, members - 20, "all that are there and were lost are held");
    let statuses = world.held_statuses(NAMESPACE);
    assert!(!statuses.contains(&Status::Up), "one that is up is shown as suspect: {statuses:?}");
    let suspects = statuses.iter().filter(|status| **status == Status::Suspect).count();
    assert!((1..held).contains(&suspects), "others keep their status: {statuses:?}");
    world
}

#[test]
fn mass_expiry_is_held_as_suspect() {
    let mut world = half_lost(600);
    let members = world.members(NAMESPACE);
    run(&mut world, 10 * TTL_MS);
    assert_eq!(world.members(NAMESPACE), members, "they are held for as long as it takes");
    world.probe_protection(NAMESPACE);
    run(&mut world, 1_000);
    peace(&mut world);
    assert_eq!((world.members(NAMESPACE), world.held(NAMESPACE)), (40, 0), "all are back");
    world.probe_protection(NAMESPACE);
    run(&mut world, 1_000);
}

#[test]
fn suspects_are_removed_at_the_end_of_the_hold_or_by_a_release() {
    let mut world = half_lost(30);
    run(&mut world, 20_000);
    assert!(world.held(NAMESPACE) > 0);
    run(&mut world, 12_000);
    assert_eq!((world.members(NAMESPACE), world.held(NAMESPACE)), (20, 0));
    peace(&mut world);

    drop(world);
    let mut world = half_lost(600);
    world.release(NAMESPACE);
    run(&mut world, 1_000);
    assert_eq!((world.members(NAMESPACE), world.held(NAMESPACE)), (20, 0));
    peace(&mut world);
    assert_eq!(world.members(NAMESPACE), 40, "they register again");
}

#[test]
fn stopped_node_registers_again() {
    let mut world = settled(plan(3), 2);
    world.pause(2, 4 * TTL_MS);
    run(&mut world, 2 * TTL_MS);
    assert_eq!(world.members(NAMESPACE), 4, "who is stopped is gone");
    run(&mut world, 25_000);
    assert_eq!(world.members(NAMESPACE), 6);
    peace(&mut world);
}

#[test]
fn slow_and_lossy_link_loses_no_change() {
    let mut world = settled(plan(3), 2);
    let link = Link { loss_percent: 10, delay_ms: 80, jitter_ms: 120, ..Link::default() };
    world.set_links(2, "loss", &link);
    for round in 0..20 {
        let number = *world.replicas.keys().nth(round % 4).unwrap();
        world.update(number, content(&format!("round {round}")));
        run(&mut world, 1_000);
    }
    peace(&mut world);
}

#[test]
fn late_reader_is_reset_by_a_snapshot() {
    let limits = Limits { log_changes_max: 24, ..Limits::default() };
    let mut world = settled(Plan { limits, ..plan(2) }, 3);
    world.watch(2, subject(), ReadingMode::Pausing { pause_max_ms: 60_000 }, 100);
    world.watch(3, subject(), ReadingMode::Pausing { pause_max_ms: 20_000 }, 100);
    world.watch(3, subject(), ReadingMode::Stuck, 100);
    for round in 0..400 {
        let number = *world.replicas.keys().nth(round % 6).unwrap();
        world.update(number, content(&format!("{round} {}", "x".repeat(300))));
        run(&mut world, 100);
    }
    // The late ones have read everything when they wake up.
    run(&mut world, 60_000);
    peace(&mut world);
    assert!(world.resets() > 0, "somebody fell behind");
}

#[test]
fn lease_expires_exactly_at_its_ttl() {
    let mut world = settled(plan(1), 1);
    for round in 0..60 {
        world.probe_lapse();
        if round % 10 == 0 {
            world.pause(REGISTRY, 400);
        }
        run(&mut world, 700);
    }
    peace(&mut world);
}

#[test]
fn fenced_lease_changes_nothing() {
    let mut world = settled(plan(1), 1);
    for _ in 0..10 {
        world.probe_fencing();
        run(&mut world, 500);
    }
    // Two processes take the identity from each other, ever more slowly.
    let number = *world.replicas.keys().next().unwrap();
    let contested = world.replicas[&number].identity.clone();
    let terms = LeaseTerms { ttl_ms: TTL_MS, grace_ms: GRACE_MS };
    world.register(2, contested, terms, content("second"));
    for _ in 0..20 {
        run(&mut world, 2_000);
        world.probe_retired();
    }
    peace(&mut world);
}

#[test]
fn contended_instance_registers_again_at_once_after_a_partition() {
    let mut world = settled(plan(2), 1);
    let survivor = world.replicas_on(2).next().unwrap();
    let contested = world.replicas[&survivor].identity.clone();
    let terms = LeaseTerms { ttl_ms: TTL_MS, grace_ms: GRACE_MS };
    let rival = world.register(3, contested, terms, content("second"));
    run(&mut world, 30_000);
    // The later lease of an identity is the active one.
    while world.replicas[&survivor].leases.last() < world.replicas[&rival].leases.last() {
        run(&mut world, 100);
    }
    world.kill(rival);
    run(&mut world, 10_000);
    assert_eq!(world.members(NAMESPACE), 2);
    world.set_links(2, "partition", &Link { cut: true, ..Link::default() });
    world.reset(2);
    run(&mut world, GRACE_MS + 500);
    assert_eq!(world.members(NAMESPACE), 1, "its grace has passed");
    world.heal();
    run(&mut world, 3_000);
    assert_eq!(world.members(NAMESPACE), 2);
    peace(&mut world);
}
