//! Selection: zones, filters and subsets.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{ANY, POLICIES, balancer, instance, snapshot};
use crate::{
    balance::{Candidates, NoInstance, Pick, Policy, Selection, Subset},
    endpoint::{Outcome, Snapshot},
    proto::{Filter, Instance},
    runtime::hash::mix,
};

/// Creates a snapshot with this number of instances in each zone.
fn zoned(zones: &[(&str, usize)]) -> Snapshot {
    let zones = zones.iter().flat_map(|(zone, count)| std::iter::repeat_n(*zone, *count));
    Snapshot::new(
        zones.enumerate().map(|(id, zone)| Instance { zone: zone.into(), ..instance(id, 100) }),
    )
}

fn near(zone: &str) -> Selection {
    Selection { zone: Some(zone.into()), ..Selection::default() }
}

/// Returns each zone's share of calls, some of which are always in flight.
fn zone_shares(candidates: &Candidates, policy: Policy) -> BTreeMap<String, f64> {
    const CALLS: usize = 20_000;
    let balancer = balancer(policy);
    let mut shares = BTreeMap::<String, f64>::new();
    let mut in_flight = VecDeque::new();
    for _ in 0..CALLS {
        let pick = balancer.pick(candidates, &ANY).unwrap();
        *shares.entry(pick.instance().zone.clone()).or_default() += 1.0 / CALLS as f64;
        in_flight.push_back(pick);
        if in_flight.len() > 10 {
            in_flight.pop_front();
        }
    }
    shares
}

#[test]
fn calls_stay_in_a_zone_with_enough_capacity() {
    for policy in POLICIES {
        let candidates = near("b").select(&zoned(&[("a", 5), ("b", 4), ("c", 3)]));
        let shares = zone_shares(&candidates, policy);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["b"], "{policy:?}: {shares:?}");
    }
}

#[test]
fn the_excess_of_a_zone_goes_to_other_zones() {
    for policy in POLICIES {
        let candidates = near("a").select(&zoned(&[("a", 2), ("b", 4), ("c", 6)]));
        let shares = zone_shares(&candidates, policy);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["a", "c"], "{policy:?}");
        assert!((shares["a"] - 0.5).abs() < 0.1, "{policy:?}: {shares:?}");
    }
}

#[test]
fn a_caller_in_a_zone_without_instances_calls_all() {
    let candidates = near("d").select(&zoned(&[("a", 5), ("b", 5)]));
    let shares = zone_shares(&candidates, Policy::PeakEwma);
    assert!((shares["a"] - 0.5).abs() < 0.1, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_leave_a_zone_in_which_most_instances_are_ejected() {
    for policy in POLICIES {
        let candidates = near("a").select(&zoned(&[("a", 3), ("b", 3)]));
        for endpoint in &candidates.preferred.as_slice()[..2] {
            endpoint.record(Outcome::Unreachable, Duration::ZERO);
        }
        let shares = zone_shares(&candidates, policy);
        assert!(shares["b"] > 0.2, "{policy:?}: {shares:?}");
        let balancer = balancer(policy);
        let failing = |pick: &Pick| ["00000", "00001"].contains(&&*pick.instance().id);
        let picks = (0..500).map(|_| balancer.pick(&candidates, &ANY).unwrap());
        assert_eq!(picks.filter(failing).count(), 0, "{policy:?}");
    }
}

#[test]
fn filters_accept_what_matches_in_every_part() {
    let labelled = |id, zone: &str, version: &str, disk: &str| Instance {
        zone: zone.into(),
        version: version.into(),
        metadata: BTreeMap::from([("disk".into(), disk.into())]),
        ..instance(id, 100)
    };
    let snapshot = Snapshot::new([
        labelled(0, "a", "1", "ssd"),
        labelled(1, "b", "1", "ssd"),
        labelled(2, "a", "2", "ssd"),
        labelled(3, "a", "1", "tape"),
        labelled(4, "c", "1", "ssd"),
    ]);
    let filter = Filter {
        zones: vec!["a".into(), "b".into()],
        versions: vec!["1".into()],
        metadata: BTreeMap::from([("disk".into(), "ssd".into())]),
    };
    let of_handle = Selection { filter: filter.clone(), ..Selection::default() }.select(&snapshot);
    let of_call = Selection::default().select(&snapshot);
    for policy in POLICIES {
        let balancer = balancer(policy);
        for (candidates, context) in [(&of_handle, ANY), (&of_call, ANY.filter(&filter))] {
            let picked: BTreeSet<String> = (0..200)
                .map(|_| balancer.pick(candidates, &context).unwrap().instance().id.clone())
                .collect();
            assert!(picked.iter().eq(["00000", "00001"]), "{policy:?}: {picked:?}");
        }
    }
}

#[test]
fn a_filter_that_matches_nothing_is_the_reason() {
    let nowhere = Filter { zones: vec!["nowhere".into()], ..Filter::default() };
    let snapshot = snapshot(&[100, 100, 0]);
    let of_handle = Selection { filter: nowhere.clone(), ..Selection::default() }.select(&snapshot);
    let of_call = Selection::default().select(&snapshot);
    for policy in POLICIES {
        let balancer = balancer(policy);
        let none = NoInstance::AllFiltered { serving: 2 };
        assert_eq!(balancer.pick(&of_handle, &ANY).unwrap_err(), none);
        assert_eq!(balancer.pick(&of_call, &ANY.filter(&nowhere)).unwrap_err(), none);
    }
}

#[test]
fn a_subset_is_stable_and_differs_between_callers() {
    let all = snapshot(&[100; 100]);
    let fewer = Snapshot::new((0..99).map(|id| instance(id, 100)));
    let of = |snapshot: &Snapshot, caller| -> BTreeSet<String> {
        let subset = Some(Subset { size: 10, caller: mix(caller) });
        let selected = Selection { subset, ..Selection::default() }.select(snapshot);
        assert_eq!(selected.others.as_ref().map(|others| others.len()), Some(snapshot.len()));
        let endpoints = selected.preferred.as_slice().iter();
        endpoints.map(|endpoint| endpoint.instance().id.clone()).collect()
    };
    let mut used = BTreeSet::new();
    for caller in 0..100 {
        let (before, after) = (of(&all, caller), of(&fewer, caller));
        assert_eq!((before.len(), after.len()), (10, 10));
        let lost: Vec<_> = before.difference(&after).collect();
        assert!(lost.is_empty() || lost == ["00099"], "{lost:?}");
        used.extend(before);
    }
    assert!(used.len() > 95, "all callers together call all: {}", used.len());
}
