//! The registry: random commands against a naive model, and one test for each rule that is easily
//! broken. This file has what they share.

mod commands;
mod expiry;
mod lease_ids;
mod model;
mod protection;
mod random;
mod take_over;
mod trial;

use std::{sync::Arc, time::Duration};

use super::{Command, Due, LeaseSeed, Now, Outcome, Patch, Refusal, Registry, Target};
use crate::{
    model::{Change, Content, LeaseId, Limits, RemovalReason, Tick, WallTime},
    testing::{id, key, terms},
};

const INSTANCES_MAX: usize = 40;
const HOLD_MS: u64 = 3_000;

/// An empty registry with room for `instances_max` instances.
fn registry(server: u8, seed: u64, instances_max: usize) -> Registry {
    let protection_hold_max = Duration::from_millis(HOLD_MS);
    let seed = LeaseSeed::repeatable(seed);
    Registry::new(server, seed, &Limits { instances_max, protection_hold_max, ..Limits::default() })
}

fn register(service: &str, instance: &str, content: Content, ttl_ms: u64) -> Command {
    let (service, id, terms) = (key(service), id(instance), terms(ttl_ms));
    Command::Register { service, id, content, terms, instances_max: None }
}

fn update(target: Target, patch: Patch) -> Command {
    Command::Update { target, patch }
}

fn deregister(target: Target) -> Command {
    Command::Deregister { target }
}

fn of(service: &str, instance: &str) -> Target {
    Target::Identity(key(service), id(instance))
}

/// The outcomes and the changes of a batch.
type Committed = (Vec<Result<Outcome, Refusal>>, Vec<Arc<Change>>);

fn commit(registry: &mut Registry, tick: u64, commands: Vec<Command>) -> Committed {
    let mut plan = registry.plan(Now { tick: Tick(tick), wall: WallTime(tick) });
    let outcomes = commands.into_iter().map(|command| plan.decide(command)).collect();
    let transitions = plan.into_transitions();
    let absorbed = transitions.into_iter().filter_map(|t| registry.absorb(t, Tick(tick)));
    (outcomes, absorbed.map(|absorbed| absorbed.change).collect())
}

fn granted(registry: &mut Registry, tick: u64, command: Command) -> LeaseId {
    let (outcomes, _) = commit(registry, tick, vec![command]);
    match &outcomes[..] {
        [Ok(Outcome::Registered { lease, .. })] => *lease,
        other => panic!("not registered: {other:?}"),
    }
}

fn refusal(registry: &mut Registry, tick: u64, command: Command) -> Refusal {
    let (mut outcomes, changes) = commit(registry, tick, vec![command]);
    assert_eq!(changes, [], "a refusal changes nothing");
    outcomes.remove(0).expect_err("refused")
}

/// The expiry of a lease that was not renewed for its TTL.
fn by_ttl(lease: LeaseId) -> Due {
    Due::Expired { lease, reason: RemovalReason::Expired }
}
