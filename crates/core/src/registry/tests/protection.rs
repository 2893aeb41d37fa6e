//! Mass-expiry protection: expired leases that are held.

use std::{sync::Arc, time::Duration};

use super::{HOLD_MS, commit, deregister, granted, register, registry, update};
use crate::{
    model::{Change, ChangeKind, LeaseId, Presence, RemovalReason, Status, Tick},
    registry::{Command, ExpiryShare, Outcome, Patch, Registry, Target},
    testing::{content, key, name},
};

/// Forty instances of a namespace with a TTL of 2 s, in the order of their leases. The first
/// `renewing` of them renew at 1000.
fn forty(renewing: usize) -> (Registry, Vec<LeaseId>) {
    let mut registry = registry(0, 1, 100);
    let table = registry.lease_table();
    let mut leases = Vec::new();
    for number in 0..40 {
        let service = ["n/one", "n/two"][number % 2];
        let command = register(service, &format!("i{number:02}"), content(1), 2_000);
        leases.push(granted(&mut registry, 0, command));
    }
    assert!(leases[..renewing].iter().all(|lease| table.renew(*lease, Tick(1_000))));
    (registry, leases)
}

/// Takes and enforces the due leases. Returns the changes.
fn enforce_due(registry: &mut Registry, tick: u64) -> Vec<Arc<Change>> {
    let (due_leases, more) = registry.take_due(Tick(tick), 1_000);
    assert!(!more);
    commit(registry, tick, due_leases.into_iter().map(Command::Enforce).collect()).1
}

fn count(changes: &[Arc<Change>], is: impl Fn(&Change) -> bool) -> usize {
    changes.iter().filter(|change| is(change)).count()
}

fn becomes(presence: Presence) -> impl Fn(&Change) -> bool {
    move |change| {
        matches!(&change.kind, ChangeKind::Updated { before, replaced: false }
            if before.presence != presence && change.instance.presence == presence)
    }
}

fn removed(reason: RemovalReason) -> impl Fn(&Change) -> bool {
    move |change| change.kind == ChangeKind::Removed(reason)
}

#[test]
fn expired_leases_above_thirty_percent_are_held() {
    let (mut registry, _) = forty(1);
    granted(&mut registry, 0, register("other/s", "a", content(1), 2_000));
    let changes = enforce_due(&mut registry, 2_016);
    // 12 are 30 % of 40, and the 13th exceeds it. The other namespace has its own count.
    assert_eq!(count(&changes, removed(RemovalReason::Expired)), 13 + 1);
    assert_eq!(count(&changes, becomes(Presence::Suspect)), 26);
    let [protected] = &registry.protected()[..] else { panic!("{:?}", registry.protected()) };
    assert_eq!((protected.namespace.as_str(), protected.held), ("n", 26));
    assert_eq!((protected.since, protected.until), (Tick(2_016), Tick(2_016 + HOLD_MS)));
    let why = ExpiryShare { expired: 13, of: 40, within: Duration::from_secs(2) };
    assert_eq!(protected.why, why);
}

#[test]
fn leases_that_expire_one_by_one_are_removed() {
    let mut registry = registry(0, 1, 100);
    for number in 0..40 {
        // One in each window.
        let instance = format!("i{number:02}");
        granted(&mut registry, number * 2_100, register("n/s", &instance, content(1), 2_000));
        enforce_due(&mut registry, number * 2_100 + 2_016);
        assert_eq!((registry.protected(), registry.instances()), (vec![], 0));
    }
}

#[test]
fn deregistrations_do_not_count_as_expired() {
    let (mut registry, leases) = forty(0);
    let batch = leases[..28].iter().map(|lease| deregister(Target::Lease(*lease))).collect();
    commit(&mut registry, 1_500, batch);
    let changes = enforce_due(&mut registry, 2_016);
    assert_eq!(count(&changes, removed(RemovalReason::Expired)), 12, "30 % of the 40 at first");
    assert_eq!((registry.protected(), registry.instances()), (vec![], 0));
}

#[test]
fn held_instance_keeps_its_status_and_its_traffic() {
    let (mut registry, leases) = forty(0);
    let statuses = [Status::Up, Status::Starting, Status::Draining, Status::Down];
    for (lease, status) in leases.iter().zip(statuses.iter().cycle()) {
        let patch = Patch { status: Some(*status), ..Patch::default() };
        commit(&mut registry, 0, vec![update(Target::Lease(*lease), patch)]);
    }
    let changes = enforce_due(&mut registry, 2_016);
    let held: Vec<_> = changes.iter().filter(|change| becomes(Presence::Suspect)(change)).collect();
    let mut seen: Vec<_> = held.iter().map(|change| change.instance.content.status()).collect();
    for change in &held {
        let up = change.instance.content.status() == Status::Up;
        assert_eq!(change.instance.serves(), up);
    }
    let table = registry.lease_table();
    let held: Vec<_> = leases.iter().filter(|lease| table.renew(**lease, Tick(3_000))).collect();
    assert_eq!(held.len(), 27, "only held leases can renew");
    let changes = enforce_due(&mut registry, 3_008);
    assert_eq!((changes.len(), count(&changes, becomes(Presence::Confirmed))), (27, 27));
    let mut after: Vec<_> = changes.iter().map(|change| change.instance.content.status()).collect();
    for all in [&mut seen, &mut after] {
        all.sort_unstable_by_key(|status| *status as u8);
    }
    assert_eq!(seen, after);
    assert!(statuses.iter().all(|status| seen.contains(status)), "{seen:?}");
    assert_eq!(registry.protected(), []);
    // From here on they expire by their TTL again.
    assert_eq!(enforce_due(&mut registry, 5_000), []);
    assert_eq!(enforce_due(&mut registry, 5_016).len(), 27);
}

#[test]
fn suspect_that_registers_again_is_confirmed() {
    let (mut registry, _) = forty(0);
    enforce_due(&mut registry, 2_016);
    let roster = &registry.service(&key("n/one")).expect("known").roster;
    let suspect = Arc::clone(roster.instances().next().expect("a suspect"));
    assert_eq!(suspect.presence, Presence::Suspect);
    let again = register("n/one", suspect.id.as_str(), content(1), 2_000);
    let (_, changes) = commit(&mut registry, 3_000, vec![again]);
    assert_eq!(count(&changes, becomes(Presence::Confirmed)), 1, "nothing was replaced");
    assert_eq!(registry.protected()[0].held, 26);
}

#[test]
fn suspects_are_removed_when_the_hold_ends() {
    let (mut registry, _) = forty(0);
    enforce_due(&mut registry, 2_016);
    assert_eq!(enforce_due(&mut registry, 2_016 + HOLD_MS), []);
    let changes = enforce_due(&mut registry, 2_016 + HOLD_MS + 16);
    assert_eq!((changes.len(), count(&changes, removed(RemovalReason::Expired))), (27, 27));
    assert_eq!((registry.protected(), registry.instances()), (vec![], 0));
}

#[test]
fn release_evicts_suspects_that_have_not_renewed() {
    let (mut registry, leases) = forty(0);
    enforce_due(&mut registry, 2_016);
    let table = registry.lease_table();
    let held = |lease: &&LeaseId| table.is_active(**lease);
    let renewed = *leases.iter().find(held).expect("a suspect");
    assert!(table.renew(renewed, Tick(3_000)));
    let release = || Command::Release { namespace: name("n"), count_max: 20 };
    let (outcomes, changes) = commit(&mut registry, 3_000, vec![release()]);
    assert!(matches!(outcomes[..], [Ok(Outcome::Released { count: 20, .. })]), "{outcomes:?}");
    assert_eq!(count(&changes, removed(RemovalReason::Evicted)), 20);
    let (outcomes, _) = commit(&mut registry, 3_000, vec![release(), release()]);
    let [Ok(Outcome::Released { count: 6, .. }), Ok(Outcome::Released { count: 0, .. })] =
        outcomes[..]
    else {
        panic!("{outcomes:?}");
    };
    let changes = enforce_due(&mut registry, 3_008);
    assert_eq!(count(&changes, becomes(Presence::Confirmed)), 1);
    assert_eq!((registry.protected(), registry.instances()), (vec![], 1));
}
