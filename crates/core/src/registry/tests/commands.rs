//! Updates, removals, full registries and abandoned plans.

use super::{by_ttl, commit, deregister, granted, of, refusal, register, registry, update};
use crate::{
    model::{ChangeKind, Content, Parts, RemovalReason, Revision, Tick, WallTime},
    registry::{Command, Now, Outcome, Patch, Refusal, Target},
    testing::{content, key, name, parts, weight, zone},
};

#[test]
fn full_registry_refuses_until_an_instance_is_removed() {
    let mut registry = registry(0, 1, 2);
    let third = || register("s", "c", content(1), 5_000);
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let batch = vec![register("t", "b", content(1), 5_000), third()];
    let (outcomes, changes) = commit(&mut registry, 0, batch);
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1].clone().err(), Some(Refusal::Full { instances_max: 2 }));
    assert_eq!(changes.len(), 1);
    assert_eq!(refusal(&mut registry, 0, third()), Refusal::Full { instances_max: 2 });
    // A take-over needs no room.
    let lease_after = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    assert_ne!(lease, lease_after);
    commit(&mut registry, 0, vec![deregister(Target::Lease(lease_after))]);
    granted(&mut registry, 0, third());
    assert_eq!(registry.instances(), 2);
}

/// A registration in a namespace that may have two instances.
fn limited(service: &str, instance: &str) -> Command {
    let mut command = register(service, instance, content(1), 5_000);
    if let Command::Register { instances_max, .. } = &mut command {
        *instances_max = Some(2);
    }
    command
}

#[test]
fn full_namespace_refuses_alone_and_take_overs_need_no_room() {
    let mut registry = registry(0, 1, 10);
    let full = Refusal::NamespaceFull { namespace: name("a"), instances_max: 2 };
    let batch = ["a/s", "a/t", "a/u", "b/s"].map(|service| limited(service, "i"));
    let (outcomes, _) = commit(&mut registry, 0, batch.into());
    assert_eq!(outcomes[2].clone().err(), Some(full.clone()));
    assert!([0, 1, 3].iter().all(|place| outcomes[*place].is_ok()));
    assert_eq!((registry.instances_in(&name("a")), registry.instances_in(&name("b"))), (2, 1));
    granted(&mut registry, 0, limited("a/t", "i"));
    assert_eq!(refusal(&mut registry, 0, limited("a/s", "j")), full);
    // One that the policy does not limit has room, and counts.
    granted(&mut registry, 0, register("a/s", "j", content(1), 5_000));
    commit(&mut registry, 0, vec![deregister(of("a/s", "j"))]);
    assert_eq!(refusal(&mut registry, 0, limited("a/s", "j")), full);
    // A planned removal makes no room, an absorbed one does.
    let batch = vec![deregister(of("a/t", "i")), limited("a/s", "j")];
    let (outcomes, _) = commit(&mut registry, 0, batch);
    assert_eq!(outcomes[1].clone().err(), Some(full));
    granted(&mut registry, 0, limited("a/s", "j"));
    assert_eq!(registry.instances_in(&name("a")), 2);
}

#[test]
fn update_without_a_change_takes_no_revision() {
    let mut registry = registry(0, 1, 10);
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    for target in [Target::Lease(lease), of("s", "a")] {
        for patch in [Patch::default(), weight(100)] {
            let (outcomes, changes) = commit(&mut registry, 0, vec![update(target.clone(), patch)]);
            assert_eq!(changes, []);
            let [Ok(Outcome::Updated { instance, revision })] = &outcomes[..] else {
                panic!("{outcomes:?}");
            };
            assert_eq!((*revision, instance.modified), (Revision(1), Revision(1)));
        }
    }
    assert_eq!(registry.revision(), Revision(1));
}

#[test]
fn update_changes_only_the_parts_it_names() {
    let mut registry = registry(0, 1, 10);
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let (_, changes) = commit(&mut registry, 0, vec![update(of("s", "a"), zone("z"))]);
    let zoned = Parts { zone: Some(name("z")), ..parts(1) };
    assert_eq!(changes[0].instance.content, Content::from(&zoned));
    assert!(matches!(changes[0].kind, ChangeKind::Updated { replaced: false, .. }));
    let (_, changes) = commit(&mut registry, 0, vec![update(of("s", "a"), weight(0))]);
    assert_eq!(changes[0].instance.content, Content::from(&Parts { weight: 0, ..zoned }));
    let unzone = Patch { zone: Some(None), ..Patch::default() };
    let (_, changes) = commit(&mut registry, 0, vec![update(of("s", "a"), unzone)]);
    assert_eq!(changes[0].instance.content, Content::from(&Parts { weight: 0, ..parts(1) }));
}

#[test]
fn removal_has_its_own_revision_and_reason() {
    let mut registry = registry(0, 1, 10);
    let a = granted(&mut registry, 0, register("s", "a", content(1), 1_000));
    granted(&mut registry, 0, register("s", "b", content(1), 5_000));
    let c = granted(&mut registry, 0, register("s", "c", content(1), 5_000));
    assert_eq!(registry.take_due(Tick(1_020), 100).0, [by_ttl(a)]);
    let batch =
        vec![Command::Enforce(by_ttl(a)), deregister(of("s", "b")), deregister(Target::Lease(c))];
    let (_, changes) = commit(&mut registry, 1_020, batch);
    let removals: Vec<_> = changes
        .iter()
        .map(|change| (change.kind.clone(), change.instance.modified, change.instance.created))
        .collect();
    let removed = ChangeKind::Removed;
    assert_eq!(
        removals,
        [
            (removed(RemovalReason::Expired), Revision(4), Revision(1)),
            (removed(RemovalReason::Evicted), Revision(5), Revision(2)),
            (removed(RemovalReason::Deregistered), Revision(6), Revision(3)),
        ]
    );
}

#[test]
fn abandoned_plan_has_no_effect() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let mut plan = registry.plan(Now { tick: Tick(1), wall: WallTime(1) });
    for command in [
        update(Target::Lease(lease), weight(1)),
        register("s", "a", content(2), 5_000),
        deregister(of("s", "a")),
        register("t", "b", content(2), 5_000),
    ] {
        plan.decide(command).expect("granted");
    }
    assert_eq!(plan.revision(), Revision(5));
    drop(plan.into_transitions());
    assert_eq!((registry.revision(), registry.instances()), (Revision(1), 1));
    assert!(registry.service(&key("t")).is_none());
    assert!(table.renew(lease, Tick(2)));
    let (_, changes) = commit(&mut registry, 2, vec![register("t", "b", content(2), 5_000)]);
    assert_eq!(changes[0].revision(), Revision(2));
}
