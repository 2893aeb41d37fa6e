//! Registrations of an identity that has a lease.

use super::{by_ttl, commit, deregister, granted, of, refusal, register, registry, update};
use crate::{
    model::{ChangeKind, Revision, Tick, WallTime},
    registry::{Outcome, Refusal, Target},
    testing::{content, weight},
};

#[test]
fn take_over_with_equal_content_is_invisible_and_fences_the_old_lease() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let old = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let again = register("s", "a", content(1), 5_000);
    let (outcomes, changes) = commit(&mut registry, 100, vec![again]);
    assert_eq!(changes, []);
    let [Ok(Outcome::Registered { instance, lease, revision })] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!((*revision, instance.modified), (Revision(1), Revision(1)));
    assert_ne!(*lease, old);
    assert!(!table.renew(old, Tick(101)));
    assert!(table.renew(*lease, Tick(101)));
    let fenced = Refusal::Fenced(old);
    assert_eq!(refusal(&mut registry, 101, update(Target::Lease(old), weight(1))), fenced);
    assert_eq!(refusal(&mut registry, 101, deregister(Target::Lease(old))), fenced);
    assert_eq!(registry.revision(), Revision(1));
    assert_eq!(registry.instances(), 1);
}

#[test]
fn take_over_with_other_content_is_one_update_marked_as_replaced() {
    let mut registry = registry(0, 1, 10);
    granted(&mut registry, 7, register("s", "a", content(1), 5_000));
    let (_, changes) = commit(&mut registry, 100, vec![register("s", "a", content(2), 5_000)]);
    let [change] = &changes[..] else { panic!("{changes:?}") };
    let ChangeKind::Updated { before, replaced: true } = &change.kind else {
        panic!("{change:?}");
    };
    assert_eq!(before.content, content(1));
    assert_eq!(change.instance.content, content(2));
    let instance = &change.instance;
    assert_eq!((instance.created, instance.modified), (Revision(1), Revision(2)));
    assert_eq!(instance.registered_at, WallTime(7), "the identity keeps its age");
}

#[test]
fn take_over_expires_by_its_own_ttl() {
    let mut registry = registry(0, 1, 10);
    granted(&mut registry, 0, register("s", "long-to-short", content(1), 60_000));
    granted(&mut registry, 0, register("s", "short-to-long", content(1), 1_000));
    let short = granted(&mut registry, 500, register("s", "long-to-short", content(1), 1_000));
    granted(&mut registry, 500, register("s", "short-to-long", content(1), 60_000));
    assert_eq!(registry.take_due(Tick(1_500), 100), (vec![], false));
    assert_eq!(registry.take_due(Tick(1_517), 100), (vec![by_ttl(short)], false));
}

#[test]
fn fenced_lease_is_unknown_after_its_identity_is_removed() {
    let mut registry = registry(0, 1, 10);
    let old = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    commit(&mut registry, 0, vec![deregister(of("s", "a"))]);
    let request = || deregister(Target::Lease(old));
    assert_eq!(refusal(&mut registry, 0, request()), Refusal::NoSuchLease(old));
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    assert_eq!(refusal(&mut registry, 0, request()), Refusal::NoSuchLease(old));
}

#[test]
fn state_of_a_lease_does_not_depend_on_batches() {
    let prepared = || {
        let mut registry = registry(0, 1, 10);
        let fenced = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
        let active = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
        (registry, fenced, active)
    };
    let commands = |fenced, active| {
        vec![
            deregister(of("s", "a")),
            update(Target::Lease(fenced), weight(1)),
            register("s", "a", content(1), 5_000),
            update(Target::Lease(active), weight(1)),
            update(Target::Lease(fenced), weight(1)),
        ]
    };
    let (mut registry, fenced, active) = prepared();
    let unknown = [fenced, active, fenced].map(Refusal::NoSuchLease);
    let refusals = |outcomes: Vec<Result<Outcome, Refusal>>| -> Vec<_> {
        outcomes.into_iter().filter_map(Result::err).collect()
    };
    let mut one_by_one = Vec::new();
    for command in commands(fenced, active) {
        one_by_one.extend(refusals(commit(&mut registry, 0, vec![command]).0));
    }
    assert_eq!(one_by_one, unknown);
    let (mut registry, fenced, active) = prepared();
    let at_once = refusals(commit(&mut registry, 0, commands(fenced, active)).0);
    assert_eq!(at_once, unknown);
}
