//! Distribution, weights, load and failures.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::*;
use crate::{
    endpoint::{Sign, Snapshot},
    proto::{Filter, Instance, Status},
    runtime::clock,
};

const POLICIES: [Policy; 5] = [
    Policy::PeakEwma,
    Policy::LeastRequest,
    Policy::Random,
    Policy::RoundRobin,
    Policy::Rendezvous,
];
pub(super) const ANY: PickContext<'_> = PickContext::new();

fn instance(id: usize, weight: u32) -> Instance {
    Instance {
        id: format!("{id:05}"),
        host: "10.0.0.1".into(),
        port: 80,
        status: Status::Up.into(),
        weight: Some(weight),
        ..Instance::default()
    }
}

fn snapshot(weights: &[u32]) -> Snapshot {
    Snapshot::new(weights.iter().enumerate().map(|(id, weight)| instance(id, *weight)))
}

/// All of them.
pub(super) fn candidates(weights: &[u32]) -> Candidates {
    Selection::default().select(&snapshot(weights))
}

fn seed() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

/// The choice by calls in flight.
fn lighter(field: &Field, random: &mut fastrand::Rng) -> usize {
    let (first, second) = least_request::draw(field, random.u64(..), random.u64(..));
    let is_second = least_request::is_lighter(field, second, first);
    if is_second { second } else { first }
}

/// How often each is chosen in `calls` choices by `choose`.
fn counts(places: usize, calls: u64, mut choose: impl FnMut(u64) -> usize) -> Vec<u64> {
    let mut counts = vec![0; places];
    for call in 0..calls {
        counts[choose(call)] += 1;
    }
    counts
}

#[test]
fn equal_weights_rotate() {
    let snapshot = snapshot(&[100, 100, 100]);
    let weights = snapshot.field().weights();
    let turns: Vec<usize> = (0..6).map(|turn| round_robin::choose(weights, turn)).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn round_robin_honours_weights_at_every_moment() {
    let snapshot = snapshot(&[100, 300, 50, 50]);
    let weights = snapshot.field().weights();
    let mut random = seed();
    let start = random.u64(..u64::MAX / 2);
    for calls in [10, 100, 1_000, 100_000] {
        let counts = counts(4, calls, |call| round_robin::choose(weights, start + call));
        for (count, share) in counts.iter().zip([0.2, 0.6, 0.1, 0.1]) {
            let off = (*count as f64 - calls as f64 * share).abs();
            assert!(off <= 6.0, "{counts:?} of {calls}");
        }
    }
}

#[test]
fn round_robin_spreads_a_heavy_instance_out() {
    let snapshot = snapshot(&[300, 100]);
    let weights = snapshot.field().weights();
    let mut streak = 0;
    for turn in 0..10_000 {
        streak = if round_robin::choose(weights, turn) == 0 { streak + 1 } else { 0 };
        assert!(streak <= 4, "three in four, but {streak} in a row");
    }
}

#[test]
fn an_idle_service_shares_by_weight() {
    let snapshot = snapshot(&[100, 300]);
    let field = snapshot.field();
    let mut random = seed();
    let counts = counts(2, 100_000, |_| lighter(field, &mut random));
    assert!((74_000..76_000).contains(&counts[1]), "{counts:?}");
}

#[test]
fn the_busier_of_two_is_left_alone() {
    let snapshot = snapshot(&[100, 100]);
    let field = snapshot.field();
    let candidates = field.endpoints();
    candidates[0].begin();
    let mut random = seed();
    for _ in 0..1_000 {
        let chosen = lighter(field, &mut random);
        assert_eq!(chosen, 1);
    }
}

#[test]
fn load_counts_relative_to_weight() {
    let snapshot = snapshot(&[100, 300]);
    let field = snapshot.field();
    let candidates = field.endpoints();
    candidates[0].begin();
    for _ in 0..3 {
        candidates[1].begin();
    }
    // (1 + 1/2) / 100 is more than (3 + 1/2) / 300: 15 against 11.7.
    let mut random = seed();
    for _ in 0..1_000 {
        let chosen = lighter(field, &mut random);
        assert_eq!(chosen, 1);
    }
}

#[test]
fn calls_that_last_are_spread_evenly() {
    let snapshot = snapshot(&[100; 50]);
    let field = snapshot.field();
    let candidates = field.endpoints();
    let mut random = seed();
    for _ in 0..5_000 {
        let chosen = lighter(field, &mut random);
        candidates[chosen].begin();
    }
    let loads: Vec<u32> = candidates.iter().map(|endpoint| endpoint.in_flight()).collect();
    assert!(loads.iter().all(|load| (95..=105).contains(load)), "{loads:?}");
}

#[test]
fn calls_that_last_are_spread_by_weight() {
    let snapshot = snapshot(&[100, 200, 300, 400]);
    let field = snapshot.field();
    let candidates = field.endpoints();
    let mut random = seed();
    for _ in 0..10_000 {
        let chosen = lighter(field, &mut random);
        candidates[chosen].begin();
    }
    for (endpoint, share) in candidates.iter().zip([1_000, 2_000, 3_000, 4_000]) {
        assert!(endpoint.in_flight().abs_diff(share) < share / 20, "{}", endpoint.in_flight());
    }
}

#[test]
fn a_tiny_weight_among_heavy_ones_is_not_flooded() {
    let snapshot = snapshot(&[1, 1_000]);
    let field = snapshot.field();
    let candidates = field.endpoints();
    let mut random = seed();
    let mut tiny = 0;
    for _ in 0..10 {
        candidates[1].begin();
    }
    for _ in 0..10_000 {
        tiny += usize::from(lighter(field, &mut random) == 0);
    }
    assert!(tiny < 50, "{tiny} of 10,000");
}

#[test]
fn a_pick_counts_until_it_is_dropped() {
    let candidates = candidates(&[100]);
    let balancer = Balancer::new(Policy::LeastRequest);
    let endpoint = &candidates.preferred.endpoints()[0];
    let first = balancer.pick(&candidates, &ANY).unwrap();
    let second = balancer.pick(&candidates, &ANY).unwrap();
    assert_eq!(endpoint.in_flight(), 2);
    drop((first, second));
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn none_to_pick_says_why() {
    for policy in POLICIES {
        let balancer = Balancer::new(policy);
        let why = |weights: &[u32]| balancer.pick(&candidates(weights), &ANY).unwrap_err();
        assert_eq!(why(&[]), NoInstance::Empty);
        let why = why(&[0, 0]);
        assert_eq!(why, NoInstance::NoneServing { instances: 2 });
    }
}

#[test]
fn what_does_not_suit_is_not_picked() {
    let candidates = candidates(&[100; 200]);
    for policy in POLICIES {
        let balancer = Balancer::new(policy);
        let only = |endpoint: &Endpoint| endpoint.instance().id == "00117";
        let pick = balancer.pick_where(&candidates, &ANY, only).unwrap().unwrap();
        assert_eq!(pick.instance().id, "00117");
        assert!(balancer.pick_where(&candidates, &ANY, |_| false).unwrap().is_none());
    }
}

/// How often each of equal instances is picked in `calls` calls of which `call` tells what they come
/// to.
fn shares(
    policy: Policy,
    count: usize,
    calls: usize,
    call: impl Fn(usize) -> (Outcome, Duration),
) -> Vec<usize> {
    let candidates = candidates(&vec![100; count]);
    let balancer = Balancer::new(policy);
    let mut shares = vec![0; count];
    for _ in 0..calls {
        let pick = balancer.pick(&candidates, &ANY).unwrap();
        let index: usize = pick.instance().id.parse().unwrap();
        shares[index] += 1;
        let (outcome, took) = call(index);
        pick.report(outcome, took);
    }
    shares
}

const QUICK: Duration = Duration::from_millis(2);

#[test]
fn a_slow_instance_is_hardly_called() {
    let slow =
        |index| (Outcome::Success, if index == 3 { Duration::from_millis(200) } else { QUICK });
    let shares = shares(Policy::PeakEwma, 10, 1_000, slow);
    assert!(shares[3] <= 5, "{shares:?}");
    let least = shares.iter().enumerate().filter(|(index, _)| *index != 3).map(|(_, count)| count);
    assert!(least.min() > Some(&60), "the others share alike: {shares:?}");
}

#[test]
fn differences_that_mean_nothing_do_not_count() {
    let noisy = |index: usize| (Outcome::Success, Duration::from_micros(300 + 60 * index as u64));
    let shares = shares(Policy::PeakEwma, 10, 10_000, noisy);
    assert!(shares.iter().all(|share| (850..1_150).contains(share)), "{shares:?}");
}

#[test]
fn weights_hold_where_all_are_alike() {
    let candidates = candidates(&[100, 300]);
    let balancer = Balancer::new(Policy::PeakEwma);
    let mut heavy = 0;
    for _ in 0..10_000 {
        let pick = balancer.pick(&candidates, &ANY).unwrap();
        heavy += usize::from(pick.instance().id == "00001");
        pick.report(Outcome::Success, QUICK);
    }
    assert!((7_350..7_650).contains(&heavy), "{heavy}");
}

#[test]
fn who_fails_fast_attracts_nothing() {
    for policy in POLICIES {
        let failing = |index| match index {
            3 => (Outcome::Failure, Duration::from_micros(100)),
            _ => (Outcome::Success, QUICK),
        };
        let shares = shares(policy, 10, 1_000, failing);
        assert!(shares[3] <= 5, "{policy:?}: {shares:?}");
    }
}

#[test]
fn where_most_fail_they_are_called_all_the_same() {
    // By key, calls in flight tell when it is too much.
    for policy in POLICIES.into_iter().filter(|policy| *policy != Policy::Rendezvous) {
        let failing = |index| match index {
            0 => (Outcome::Success, QUICK),
            _ => (Outcome::Failure, QUICK),
        };
        let shares = shares(policy, 3, 1_000, failing);
        assert!(shares[1] + shares[2] > 100, "the one left is not overrun: {policy:?}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_probe_brings_an_instance_back() {
    for policy in POLICIES {
        let candidates = candidates(&[100, 100]);
        let places = candidates.preferred.endpoints();
        let balancer = Balancer::new(policy);
        let [sound, sick] = [0, 1].map(|index| Arc::clone(&places[index]));
        sick.note(Sign::Unreached, Duration::ZERO);
        let picked = || balancer.pick(&candidates, &ANY).unwrap();
        assert!((0..50).all(|_| picked().endpoint().is_at(&sound)), "{policy:?}: left alone");
        // A little more than a second later, one call goes there, and no other before it has ended.
        tokio::time::advance(Duration::from_millis(1_200)).await;
        candidates.advance(clock::now());
        let probes: Vec<Pick> = (0..50).map(|_| picked()).collect();
        let probe = probes.into_iter().filter(|pick| pick.endpoint().is_at(&sick));
        let mut probe: Vec<Pick> = probe.collect();
        assert_eq!(probe.len(), 1, "{policy:?}");
        probe.pop().unwrap().report(Outcome::Success, QUICK);
        let back = (0..200).filter(|_| picked().endpoint().is_at(&sick)).count();
        assert!(back > 20, "{policy:?}: {back} of 200");
    }
}

#[test]
fn a_seed_fixes_every_choice() {
    for policy in POLICIES {
        let picked = |seed| -> Vec<String> {
            let (candidates, balancer) =
                (candidates(&[100, 50, 7, 100]), Balancer::seeded(policy, seed));
            let pick = || balancer.pick(&candidates, &ANY).unwrap();
            (0..200).map(|_| pick().instance().id.clone()).collect()
        };
        assert_eq!(picked(7), picked(7), "{policy:?}");
        assert_ne!(picked(7), picked(8), "{policy:?}");
    }
}

/// Where a hundred keys go.
fn homes(candidates: &Candidates, balancer: &Balancer) -> Vec<String> {
    let home = |key: u32| {
        let context = PickContext::new().key(key.to_string());
        balancer.pick(candidates, &context).unwrap().instance().id.clone()
    };
    (0..100).map(home).collect()
}

#[test]
fn a_key_stays_where_it_is_whoever_comes_and_goes() {
    let balancer = Balancer::new(Policy::Rendezvous);
    for weights in [vec![100; 20], (1..=20).map(|weight| weight * 10).collect()] {
        let before = homes(&candidates(&weights), &balancer);
        assert_eq!(before, homes(&candidates(&weights), &Balancer::new(Policy::Rendezvous)));
        // Without the last one.
        let after = homes(&candidates(&weights[..19]), &balancer);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || before == "00019", "moved from {before} to {after}");
        }
        assert!(before.iter().any(|home| home == "00019"));
    }
}

#[test]
fn keys_are_shared_out_by_weight() {
    let candidates = candidates(&[100, 300, 600]);
    let balancer = Balancer::new(Policy::Rendezvous);
    let mut counts = [0; 3];
    for key in 0_u32..20_000 {
        let pick = balancer.pick(&candidates, &PickContext::new().key(key.to_be_bytes())).unwrap();
        counts[pick.instance().id.parse::<usize>().unwrap()] += 1;
    }
    for (count, share) in counts.iter().zip([2_000_i32, 6_000, 12_000]) {
        assert!((count - share).abs() < 500, "{counts:?}");
    }
}

#[test]
fn one_key_does_not_overload_its_instance() {
    let candidates = candidates(&[100; 10]);
    let balancer = Balancer::new(Policy::Rendezvous);
    let context = PickContext::new().key("the same for all");
    let picks: Vec<Pick> =
        (0..1_000).map(|_| balancer.pick(&candidates, &context).unwrap()).collect();
    let loads: Vec<u32> =
        candidates.preferred.endpoints().iter().map(|endpoint| endpoint.in_flight()).collect();
    assert!(loads.iter().all(|load| *load <= 126), "{loads:?}");
    assert!(loads.iter().any(|load| *load >= 120), "as long as it can it stays: {loads:?}");
    drop(picks);
}

#[test]
fn a_failing_instance_gives_its_keys_to_others_for_a_while() {
    let candidates = candidates(&[100; 5]);
    let balancer = Balancer::new(Policy::Rendezvous);
    let context = PickContext::new().key("customer 17");
    let home = balancer.pick(&candidates, &context).unwrap();
    let endpoint = Arc::clone(home.endpoint());
    drop(home);
    endpoint.note(Sign::Unreached, Duration::ZERO);
    let elsewhere = balancer.pick(&candidates, &context).unwrap();
    assert!(!elsewhere.endpoint().is_at(&endpoint));
}

/// Instances of which these many are in each zone.
fn zoned(zones: &[(&str, usize)]) -> Snapshot {
    let zones = zones.iter().flat_map(|(zone, count)| std::iter::repeat_n(*zone, *count));
    Snapshot::new(
        zones.enumerate().map(|(id, zone)| Instance { zone: zone.into(), ..instance(id, 100) }),
    )
}

fn near(zone: &str) -> Selection {
    Selection { zone: Some(zone.into()), ..Selection::default() }
}

/// What part of the calls goes to each zone, with calls of which some are always in flight.
fn zone_shares(candidates: &Candidates, policy: Policy) -> BTreeMap<String, f64> {
    const CALLS: usize = 20_000;
    let balancer = Balancer::seeded(policy, 1);
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
fn calls_stay_in_a_zone_that_has_its_share() {
    for policy in POLICIES {
        let candidates = near("b").select(&zoned(&[("a", 5), ("b", 4), ("c", 3)]));
        let shares = zone_shares(&candidates, policy);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["b"], "{policy:?}: {shares:?}");
    }
}

#[test]
fn what_a_zone_has_too_little_of_goes_elsewhere() {
    for policy in POLICIES {
        let candidates = near("a").select(&zoned(&[("a", 2), ("b", 4), ("c", 6)]));
        let shares = zone_shares(&candidates, policy);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["a", "c"], "{policy:?}");
        assert!((shares["a"] - 0.5).abs() < 0.1, "{policy:?}: {shares:?}");
    }
}

#[test]
fn a_zone_without_instances_calls_all() {
    let candidates = near("d").select(&zoned(&[("a", 5), ("b", 5)]));
    let shares = zone_shares(&candidates, Policy::PeakEwma);
    assert!((shares["a"] - 0.5).abs() < 0.1, "{shares:?}");
}

#[test]
fn where_most_of_a_zone_fails_calls_go_to_all() {
    for policy in POLICIES {
        let candidates = near("a").select(&zoned(&[("a", 3), ("b", 3)]));
        for endpoint in &candidates.preferred.endpoints()[..2] {
            endpoint.note(Sign::Unreached, Duration::ZERO);
        }
        let shares = zone_shares(&candidates, policy);
        assert!(shares["b"] > 0.2, "{policy:?}: {shares:?}");
        let balancer = Balancer::new(policy);
        let failing = |pick: &Pick| ["00000", "00001"].contains(&&*pick.instance().id);
        let picks = (0..500).map(|_| balancer.pick(&candidates, &ANY).unwrap());
        assert_eq!(picks.filter(failing).count(), 0, "{policy:?}");
    }
}

#[test]
fn filters_let_through_what_matches_in_all() {
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
        let balancer = Balancer::new(policy);
        for (candidates, context) in [(&of_handle, ANY), (&of_call, ANY.filter(&filter))] {
            let picked: BTreeSet<String> = (0..200)
                .map(|_| balancer.pick(candidates, &context).unwrap().instance().id.clone())
                .collect();
            assert!(picked.iter().eq(["00000", "00001"]), "{policy:?}: {picked:?}");
        }
    }
}

#[test]
fn a_filter_that_lets_nothing_through_says_so() {
    let nowhere = Filter { zones: vec!["nowhere".into()], ..Filter::default() };
    let snapshot = snapshot(&[100, 100, 0]);
    let of_handle = Selection { filter: nowhere.clone(), ..Selection::default() }.select(&snapshot);
    let of_call = Selection::default().select(&snapshot);
    for policy in POLICIES {
        let balancer = Balancer::new(policy);
        let none = NoInstance::AllFiltered { serving: 2 };
        assert_eq!(balancer.pick(&of_handle, &ANY).unwrap_err(), none);
        assert_eq!(balancer.pick(&of_call, &ANY.filter(&nowhere)).unwrap_err(), none);
    }
}

#[test]
fn who_wants_healthy_ones_only_gets_no_other() {
    for policy in POLICIES {
        let (candidates, balancer) = (candidates(&[100; 4]), Balancer::new(policy));
        let healthy = ANY.healthy_only();
        let places = candidates.preferred.endpoints();
        for endpoint in &places[..3] {
            endpoint.note(Sign::Unreached, Duration::ZERO);
        }
        for _ in 0..200 {
            let pick = balancer.pick(&candidates, &healthy).unwrap();
            assert_eq!(pick.instance().id, "00003", "{policy:?}");
        }
        places[3].note(Sign::Unreached, Duration::ZERO);
        let why = balancer.pick(&candidates, &healthy).unwrap_err();
        assert_eq!(why, NoInstance::AllEjected { instances: 4 }, "{policy:?}");
        assert!(balancer.pick(&candidates, &ANY).is_ok(), "{policy:?}");
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
        let endpoints = selected.preferred.endpoints().iter();
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

#[test]
fn a_newcomer_gets_its_share_bit_by_bit() {
    for policy in POLICIES {
        let slow_start = Duration::from_secs(10);
        let selection = Selection { slow_start, ..Selection::default() };
        let candidates = selection.select(&snapshot(&[100; 4]));
        let origin = clock::now();
        candidates.advance(origin);
        candidates.preferred.endpoints()[3].come_after(None, 1);
        let balancer = Balancer::seeded(policy, 3);
        for (seconds, least, most) in [(0, 0.005, 0.06), (5, 0.07, 0.19), (10, 0.2, 0.3)] {
            candidates.advance(origin + Duration::from_secs(seconds));
            let picks = (0..4_000).map(|_| balancer.pick(&candidates, &ANY).unwrap());
            let new = picks.filter(|pick| pick.instance().id == "00003").count();
            let share = new as f64 / 4_000.0;
            assert!((least..most).contains(&share), "{policy:?} after {seconds} s: {share}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_pass_by_take_no_probe() {
    let (candidates, balancer) = (candidates(&[100; 20]), Balancer::new(Policy::Rendezvous));
    let home = |key: u32| {
        let context = PickContext::new().key(key.to_be_bytes());
        balancer.pick(&candidates, &context).unwrap()
    };
    // The first of all: each key asks for its admission, and few belong to it.
    let first = Arc::clone(&candidates.preferred.endpoints()[0]);
    let key = (0..).find(|key| home(*key).endpoint().is_at(&first)).unwrap();
    first.note(Sign::Unreached, Duration::ZERO);
    tokio::time::advance(Duration::from_secs(2)).await;
    candidates.advance(clock::now());
    for other in (0..1_000).filter(|other| *other != key) {
        if home(other).endpoint().is_at(&first) {
            return;
        }
    }
    unreachable!("one of a thousand is the probe");
}

#[test]
fn those_that_are_few_share_calls_by_weight() {
    let weights: Vec<u32> = (0..100).map(|index| if index == 50 { 300 } else { 100 }).collect();
    let candidates = candidates(&weights);
    let two = |endpoint: &Endpoint| ["00049", "00050"].contains(&&*endpoint.instance().id);
    for policy in [Policy::PeakEwma, Policy::Random, Policy::RoundRobin] {
        let balancer = Balancer::seeded(policy, 5);
        let picks = (0..4_000).map(|_| balancer.pick_where(&candidates, &ANY, two));
        let heavy =
            picks.filter(|pick| pick.as_ref().unwrap().as_ref().unwrap().instance().id == "00050");
        let share = heavy.count() as f64 / 4_000.0;
        assert!((0.7..0.8).contains(&share), "{policy:?}: {share}");
    }
}

#[test]
fn the_turn_of_one_that_fails_is_shared_by_all() {
    let (candidates, balancer) = (candidates(&[100; 3]), Balancer::seeded(Policy::RoundRobin, 9));
    candidates.preferred.endpoints()[0].note(Sign::Unreached, Duration::ZERO);
    let picks = (0..4_000).map(|_| balancer.pick(&candidates, &ANY).unwrap());
    let second = picks.filter(|pick| pick.instance().id == "00001").count();
    assert!((1_850..2_150).contains(&second), "{second} of 4,000");
}

#[test]
fn who_takes_no_connection_is_left_alone_at_once() {
    for policy in POLICIES {
        let (candidates, balancer) = (candidates(&[100; 3]), Balancer::new(policy));
        let pick = || balancer.pick(&candidates, &ANY).unwrap();
        let first = pick();
        let id = first.instance().id.clone();
        first.report(Outcome::Unreachable, Duration::ZERO);
        assert!((0..100).all(|_| pick().instance().id != id), "{policy:?}");
    }
}
