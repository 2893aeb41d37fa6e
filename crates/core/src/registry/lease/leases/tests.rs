//! The slots, their leases' ids and deadlines.

use super::*;
use crate::{
    model::{Revision, WallTime},
    testing::{content, id, key, terms},
};

const SERVICE: ServiceNumber = ServiceNumber(1);

fn instance() -> Arc<Instance> {
    Arc::new(Instance {
        service: Arc::new(key("s")),
        id: id("a"),
        content: content(1),
        presence: Presence::Confirmed,
        created: Revision(1),
        modified: Revision(1),
        registered_at: WallTime(0),
    })
}

fn next(leases: &Leases) -> LeaseId {
    leases.upcoming(0, &mut leases.generations())
}

#[test]
fn lease_of_a_reused_slot_does_not_follow_from_the_one_before() {
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    let mut steps = std::collections::BTreeSet::new();
    let mut before = None;
    for _ in 0..100 {
        let lease = next(&leases);
        leases.grant(lease, SERVICE, instance(), terms(5_000), Tick(0));
        leases.end(lease.slot());
        if let Some(before) = before.replace(lease.generation()) {
            steps.insert(lease.generation().wrapping_sub(before) % LeaseId::GENERATIONS);
        }
    }
    assert_eq!(steps.len(), 99, "each step differs");
}

#[test]
fn planned_leases_are_granted_as_planned() {
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    for round in 0..3 {
        let mut generations = leases.generations();
        let planned: Vec<_> = (0..4).map(|nth| leases.upcoming(nth, &mut generations)).collect();
        for lease in &planned {
            assert_eq!(next(&leases), *lease, "round {round}");
            leases.grant(*lease, SERVICE, instance(), terms(5_000), Tick(0));
        }
        leases.end(planned[1].slot());
    }
}

#[test]
fn generations_wrap_and_skip_lease_0() {
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    let last = LeaseId::new(0, LeaseId::GENERATIONS - 1, 0);
    leases.grant(last, SERVICE, instance(), terms(5_000), Tick(0));
    let next = leases.successor(last);
    assert_eq!(next, LeaseId::new(0, 1, 0), "generation 0 of slot 0 would be lease 0");
    leases.supersede(next, instance(), terms(5_000), Tick(0));
    assert!(matches!(leases.state(last), LeaseState::Fenced));
    assert!(matches!(leases.state(next), LeaseState::Active(_)));
    leases.end(0);
    assert!(matches!(leases.state(last), LeaseState::Unknown));
    assert!(matches!(leases.state(next), LeaseState::Unknown));
}

#[test]
fn longest_free_slot_is_reused_first() {
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    for slot in 0..4 {
        let lease = next(&leases);
        assert_eq!(lease.slot(), slot);
        leases.grant(lease, SERVICE, instance(), terms(5_000), Tick(0));
    }
    for slot in [2, 0, 3] {
        leases.end(slot);
    }
    assert_eq!(leases.active(), 1);
    let mut generations = leases.generations();
    let slots: Vec<_> = (0..5).map(|nth| leases.upcoming(nth, &mut generations).slot()).collect();
    assert_eq!(slots, [2, 0, 3, 4, 5]);
}

#[test]
fn part_of_a_millisecond_of_ttl_counts_as_one() {
    let terms = LeaseTerms { ttl: Duration::from_micros(1_000_001), ..terms(0) };
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    let lease = next(&leases);
    leases.grant(lease, SERVICE, instance(), terms, Tick(0));
    assert_eq!(leases.take_due(Tick(1_001), 10).0, []);
    let reason = RemovalReason::Expired;
    assert_eq!(leases.take_due(Tick(1_024), 10).0, [Due::Expired { lease, reason }]);
}

#[test]
fn stalls_do_not_count_against_leases() {
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    let lease = next(&leases);
    leases.grant(lease, SERVICE, instance(), terms(1_000), Tick(500));
    leases.record_stall(Tick(100), Tick(400));
    leases.record_stall(Tick(450), Tick(600));
    leases.record_stall(Tick(700), Tick(3_700));
    let deadline = 500 + 1_000 + 100 + 3_000;
    assert_eq!(leases.take_due(Tick(3_700), 10).0, []);
    assert_eq!(leases.take_due(Tick(deadline), 10).0, []);
    let reason = RemovalReason::Expired;
    assert_eq!(leases.take_due(Tick(deadline + 9), 10).0, [Due::Expired { lease, reason }]);
}

#[test]
fn stream_found_broken_after_a_stall_leaves_time_for_a_heartbeat() {
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    let lease = next(&leases);
    let disconnect_grace = Duration::from_millis(20);
    let terms = LeaseTerms { disconnect_grace, ..terms(9_000) };
    leases.grant(lease, SERVICE, instance(), terms, Tick(0));
    let table = leases.table();
    let (first, second) = (table.open_stream(), table.open_stream());
    assert!(table.renew_over(first, lease, Tick(1_000)));
    leases.record_stall(Tick(2_000), Tick(5_000));
    table.break_stream(first, lease, Tick(4_990));
    assert_eq!(leases.take_due(Tick(4_990 + 3_000), 10).0, []);
    assert!(table.renew_over(second, lease, Tick(8_000)));
    table.break_stream(second, lease, Tick(8_010));
    let due = leases.take_due(Tick(8_010 + 20 + 9), 10).0;
    let reason = RemovalReason::Disconnected;
    assert_eq!(due, [Due::Expired { lease, reason }], "other leases expire after their grace");
}

#[test]
fn visits_are_bounded_and_the_rest_remains_due() {
    let mut leases = Leases::new(0, LeaseSeed::repeatable(1), Duration::from_secs(600));
    for _ in 0..10 {
        leases.grant(next(&leases), SERVICE, instance(), terms(1_000), Tick(0));
    }
    let (first, more) = leases.take_due(Tick(2_000), 4);
    assert_eq!((first.len(), more), (4, true));
    let (second, more) = leases.take_due(Tick(2_000), 100);
    assert_eq!((second.len(), more), (6, false));
}
