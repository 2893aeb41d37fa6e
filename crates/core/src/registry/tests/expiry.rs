//! Leases that expire by their TTL or after their stream broke.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;

use super::{by_ttl, commit, granted, register, registry};
use crate::{
    model::{ChangeKind, LeaseId, RemovalReason, Tick},
    registry::{Command, Due, Outcome, Registry, StreamId},
    testing::{content, with_seeds},
};

#[test]
fn expired_lease_cannot_renew_unless_it_is_reinstated() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 1_000));
    let (expired, more) = registry.take_due(Tick(1_017), 100);
    assert_eq!((&expired[..], more), (&[by_ttl(lease)][..], false));
    assert!(!table.renew(lease, Tick(1_017)));
    registry.reinstate(&expired, Tick(1_020));
    assert_eq!(registry.take_due(Tick(1_036), 100).0, [by_ttl(lease)], "due again at once");
    registry.reinstate(&expired, Tick(1_036));
    assert!(table.renew(lease, Tick(1_040)));
    assert_eq!(registry.take_due(Tick(2_040), 100).0, []);
    assert_eq!(registry.take_due(Tick(2_057), 100).0, [by_ttl(lease)]);
    let (_, changes) = commit(&mut registry, 2_057, vec![Command::Enforce(by_ttl(lease))]);
    assert!(matches!(changes[0].kind, ChangeKind::Removed(RemovalReason::Expired)));
    registry.reinstate(&[by_ttl(lease)], Tick(2_060));
    assert!(!table.renew(lease, Tick(2_060)), "an absorbed expiry is final");
    assert_eq!(registry.take_due(Tick(9_000), 100), (vec![], false));
}

#[test]
fn registration_in_the_batch_of_its_expiry_is_a_new_instance() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 1_000));
    assert_eq!(registry.take_due(Tick(2_000), 100).0, [by_ttl(lease)]);
    let batch = vec![Command::Enforce(by_ttl(lease)), register("s", "a", content(1), 1_000)];
    let (outcomes, changes) = commit(&mut registry, 2_000, batch);
    assert!(matches!(changes[0].kind, ChangeKind::Removed(RemovalReason::Expired)));
    assert!(matches!(changes[1].kind, ChangeKind::Added));
    let Ok(Outcome::Registered { lease: new, .. }) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(table.renew(*new, Tick(2_001)));
    assert!(!table.renew(lease, Tick(2_001)));
}

#[test]
fn expiry_is_never_early_and_at_most_17_ms_late() {
    with_seeds(4, |seed| {
        let mut random = Rng::with_seed(seed);
        let mut registry = registry(0, seed, 400);
        let table = registry.lease_table();
        // For each lease: the end of its renewals, the last renewal, the TTL.
        let mut active = BTreeMap::new();
        for now in 0..8_000 {
            if now < 1_000 && random.u8(..3) == 0 {
                let ttl_ms = random.u64(1_000..1_100);
                let instance = format!("i{now}");
                // Few in a namespace, so that protection does not begin.
                let service = format!("n{}/s", now % 100);
                let command = register(&service, &instance, content(1), ttl_ms);
                let lease = granted(&mut registry, now, command);
                active.insert(lease, (now + random.u64(..5_000), now, ttl_ms));
            }
            for (lease, (until, renewed_at, _)) in &mut active {
                if now < *until && random.u16(..300) == 0 {
                    assert!(table.renew(*lease, Tick(now)) || now > *renewed_at + 1_000);
                    *renewed_at = now.max(*renewed_at);
                }
            }
            let visits_max = 1 + random.usize(..3) * 1_000;
            let (mut expired, mut more) = registry.take_due(Tick(now), visits_max);
            while more {
                let (taken, still_more) = registry.take_due(Tick(now), visits_max);
                expired.extend(taken);
                more = still_more;
            }
            let commands = expired.iter().copied().map(Command::Enforce).collect();
            commit(&mut registry, now, commands);
            for due in expired {
                let Due::Expired { lease, .. } = due else { panic!("{due:?}") };
                let (_, renewed_at, ttl_ms) = active.remove(&lease).expect("active");
                assert!(now > renewed_at + ttl_ms, "early");
            }
            for (_, renewed_at, ttl_ms) in active.values() {
                assert!(now < renewed_at + ttl_ms + 17, "late");
            }
        }
        assert!(active.is_empty());
        assert_eq!(registry.instances(), 0);
    });
}

/// The expiry of a lease whose stream broke.
fn by_grace(lease: LeaseId) -> Due {
    Due::Expired { lease, reason: RemovalReason::Disconnected }
}

/// A lease of 60 s with a grace of 1 s, renewed over a stream at 500.
fn streaming() -> (Registry, StreamId, LeaseId) {
    let mut registry = registry(0, 1, 10);
    let mut command = register("s", "a", content(1), 60_000);
    if let Command::Register { terms, .. } = &mut command {
        terms.disconnect_grace = Duration::from_secs(1);
    }
    let lease = granted(&mut registry, 0, command);
    let table = registry.lease_table();
    let stream = table.open_stream();
    assert!(table.renew_over(stream, lease, Tick(500)));
    (registry, stream, lease)
}

#[test]
fn lease_expires_after_the_grace_of_its_broken_stream() {
    let (mut registry, stream, lease) = streaming();
    registry.lease_table().break_stream(stream, lease, Tick(2_000));
    assert_eq!(registry.take_due(Tick(2_100), 100).0, []);
    assert_eq!(registry.take_due(Tick(3_000), 100).0, [], "not before the grace is over");
    assert_eq!(registry.take_due(Tick(3_009), 100).0, [by_grace(lease)]);
    let (_, changes) = commit(&mut registry, 3_009, vec![Command::Enforce(by_grace(lease))]);
    assert!(matches!(changes[0].kind, ChangeKind::Removed(RemovalReason::Disconnected)));
}

#[test]
fn renewal_within_the_grace_restores_the_ttl() {
    let (mut registry, stream, lease) = streaming();
    let table = registry.lease_table();
    table.break_stream(stream, lease, Tick(2_000));
    assert_eq!(registry.take_due(Tick(2_100), 100).0, []);
    assert!(table.renew(lease, Tick(2_900)));
    assert_eq!(registry.take_due(Tick(62_900), 100).0, []);
    assert_eq!(registry.take_due(Tick(62_917), 100).0, [by_ttl(lease)]);
}

#[test]
fn take_over_within_the_grace_ends_it() {
    let (mut registry, stream, lease) = streaming();
    registry.lease_table().break_stream(stream, lease, Tick(2_000));
    let new = granted(&mut registry, 2_500, register("s", "a", content(1), 60_000));
    assert_eq!(registry.take_due(Tick(60_000), 100).0, []);
    assert_eq!(registry.take_due(Tick(62_517), 100).0, [by_ttl(new)]);
}

#[test]
fn grace_does_not_extend_the_ttl() {
    let (mut registry, stream, lease) = streaming();
    registry.lease_table().break_stream(stream, lease, Tick(60_000));
    assert_eq!(registry.take_due(Tick(60_517), 100).0, [by_ttl(lease)]);
}
