//! Lease ids name one lease each.

use std::collections::BTreeSet;

use super::{commit, deregister, granted, refusal, register, registry};
use crate::{
    model::Tick,
    registry::{Refusal, Target},
    testing::content,
};

#[test]
fn reused_slot_never_revives_an_old_lease() {
    let mut registry = registry(0, 1, 1);
    let table = registry.lease_table();
    let mut ended = BTreeSet::new();
    for round in 0..200 {
        let lease = granted(&mut registry, round, register("s", "a", content(1), 5_000));
        assert_eq!(lease.slot(), 0);
        assert!(!ended.contains(&lease));
        let taken_over = round % 3 == 0;
        let last = if taken_over {
            granted(&mut registry, round, register("s", "a", content(2), 5_000))
        } else {
            lease
        };
        for old in &ended {
            assert!(!table.renew(*old, Tick(round)), "{old:?}");
            let request = deregister(Target::Lease(*old));
            assert_eq!(refusal(&mut registry, round, request), Refusal::NoSuchLease(*old));
        }
        ended.extend([lease, last]);
        let (outcomes, _) = commit(&mut registry, round, vec![deregister(Target::Lease(last))]);
        assert!(outcomes[0].is_ok());
        assert!(!table.renew(last, Tick(round)));
    }
}

#[test]
fn lease_ids_differ_between_processes_and_slots() {
    let first = |seed| {
        let mut registry = registry(3, seed, 10);
        ["a", "b", "c"].map(|i| granted(&mut registry, 0, register("s", i, content(1), 5_000)))
    };
    let mut generations = BTreeSet::new();
    for seed in 0..100 {
        for (slot, lease) in first(seed).into_iter().enumerate() {
            assert_eq!((lease.server(), lease.slot() as usize), (3, slot));
            generations.insert(lease.generation());
        }
    }
    assert_eq!(generations.len(), 300);
    // A lease of another process is unknown.
    let mut registry = registry(3, 1, 10);
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let foreign = first(2)[0];
    assert!(!registry.lease_table().renew(foreign, Tick(1)));
    let request = deregister(Target::Lease(foreign));
    assert_eq!(refusal(&mut registry, 1, request), Refusal::NoSuchLease(foreign));
}
