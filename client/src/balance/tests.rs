//! Distribution, weights, load and failures.

use std::time::Duration;

use super::*;
use crate::{
    clock,
    outlier::Sign,
    proto::{Instance, Status},
    weights::Weights,
};

const POLICIES: [Policy; 3] = [Policy::PeakEwma, Policy::PowerOfTwo, Policy::RoundRobin];

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

fn seed() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

/// The choice by calls in flight.
fn lighter(candidates: &[Arc<Endpoint>], weights: &Weights, random: &mut fastrand::Rng) -> usize {
    let (first, second) = power_of_two::draw(candidates, weights, random.u64(..), random.u64(..));
    let is_second = power_of_two::is_lighter(&candidates[second], &candidates[first]);
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
    let (_, weights) = snapshot.candidates();
    let turns: Vec<usize> = (0..6).map(|turn| round_robin::choose(weights, turn)).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn round_robin_honours_weights_at_every_moment() {
    let snapshot = snapshot(&[100, 300, 50, 50]);
    let (_, weights) = snapshot.candidates();
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
    let (_, weights) = snapshot.candidates();
    let mut streak = 0;
    for turn in 0..10_000 {
        streak = if round_robin::choose(weights, turn) == 0 { streak + 1 } else { 0 };
        assert!(streak <= 4, "three in four, but {streak} in a row");
    }
}

#[test]
fn an_idle_service_shares_by_weight() {
    let snapshot = snapshot(&[100, 300]);
    let (candidates, weights) = snapshot.candidates();
    let mut random = seed();
    let counts = counts(2, 100_000, |_| lighter(candidates, weights, &mut random));
    assert!((74_000..76_000).contains(&counts[1]), "{counts:?}");
}

#[test]
fn the_busier_of_two_is_left_alone() {
    let snapshot = snapshot(&[100, 100]);
    let (candidates, weights) = snapshot.candidates();
    candidates[0].begin();
    let mut random = seed();
    for _ in 0..1_000 {
        let chosen = lighter(candidates, weights, &mut random);
        assert_eq!(chosen, 1);
    }
}

#[test]
fn load_counts_relative_to_weight() {
    let snapshot = snapshot(&[100, 300]);
    let (candidates, weights) = snapshot.candidates();
    candidates[0].begin();
    for _ in 0..4 {
        candidates[1].begin();
    }
    // (1 + 1) / 100 is as light as (4 + 1) / 300 is not: 20 against 16.7.
    let mut random = seed();
    for _ in 0..1_000 {
        let chosen = lighter(candidates, weights, &mut random);
        assert_eq!(chosen, 1);
    }
}

#[test]
fn calls_that_last_are_spread_evenly() {
    let snapshot = snapshot(&[100; 50]);
    let (candidates, weights) = snapshot.candidates();
    let mut random = seed();
    for _ in 0..5_000 {
        let chosen = lighter(candidates, weights, &mut random);
        candidates[chosen].begin();
    }
    let loads: Vec<u32> = candidates.iter().map(|endpoint| endpoint.in_flight()).collect();
    assert!(loads.iter().all(|load| (95..=105).contains(load)), "{loads:?}");
}

#[test]
fn calls_that_last_are_spread_by_weight() {
    let snapshot = snapshot(&[100, 200, 300, 400]);
    let (candidates, weights) = snapshot.candidates();
    let mut random = seed();
    for _ in 0..10_000 {
        let chosen = lighter(candidates, weights, &mut random);
        candidates[chosen].begin();
    }
    for (endpoint, share) in candidates.iter().zip([1_000, 2_000, 3_000, 4_000]) {
        assert!(endpoint.in_flight().abs_diff(share) < share / 20, "{}", endpoint.in_flight());
    }
}

#[test]
fn a_tiny_weight_among_heavy_ones_is_not_flooded() {
    let snapshot = snapshot(&[1, 1_000]);
    let (candidates, weights) = snapshot.candidates();
    let mut random = seed();
    let mut tiny = 0;
    for _ in 0..10 {
        candidates[1].begin();
    }
    for _ in 0..10_000 {
        tiny += usize::from(lighter(candidates, weights, &mut random) == 0);
    }
    assert!(tiny < 50, "{tiny} of 10,000");
}

#[test]
fn a_pick_counts_until_it_is_dropped() {
    let snapshot = snapshot(&[100]);
    let balancer = Balancer::new(Policy::PowerOfTwo);
    let endpoint = &snapshot.candidates().0[0];
    let first = balancer.pick(&snapshot).unwrap();
    let second = balancer.pick(&snapshot).unwrap();
    assert_eq!(endpoint.in_flight(), 2);
    drop((first, second));
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn none_to_pick_says_why() {
    for policy in POLICIES {
        let balancer = Balancer::new(policy);
        assert_eq!(balancer.pick(&snapshot(&[])).unwrap_err(), NoInstance::Empty);
        let drained = snapshot(&[0, 0]);
        let why = balancer.pick(&drained).unwrap_err();
        assert_eq!(why, NoInstance::NoneServing { instances: 2 });
    }
}

#[test]
fn what_does_not_suit_is_not_picked() {
    let snapshot = snapshot(&[100; 200]);
    for policy in POLICIES {
        let balancer = Balancer::new(policy);
        let only = |endpoint: &Endpoint| endpoint.instance().id == "00117";
        let pick = balancer.pick_where(&snapshot, only).unwrap().unwrap();
        assert_eq!(pick.instance().id, "00117");
        assert!(balancer.pick_where(&snapshot, |_| false).unwrap().is_none());
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
    let snapshot = snapshot(&vec![100; count]);
    let balancer = Balancer::new(policy);
    let mut shares = vec![0; count];
    for _ in 0..calls {
        let pick = balancer.pick(&snapshot).unwrap();
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
    let snapshot = snapshot(&[100, 300]);
    let balancer = Balancer::new(Policy::PeakEwma);
    let mut heavy = 0;
    for _ in 0..10_000 {
        let pick = balancer.pick(&snapshot).unwrap();
        heavy += usize::from(pick.instance().id == "00001");
        pick.report(Outcome::Success, QUICK);
    }
    // Of two draws that are the same the second is another one: near 3/4.
    assert!((6_500..8_000).contains(&heavy), "{heavy}");
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
    for policy in POLICIES {
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
        let snapshot = snapshot(&[100, 100]);
        let balancer = Balancer::new(policy);
        let [sound, sick] = [0, 1].map(|index| Arc::clone(&snapshot.candidates().0[index]));
        sick.note(Sign::Unreached, Duration::ZERO);
        let picked = || balancer.pick(&snapshot).unwrap();
        assert!((0..50).all(|_| picked().endpoint().is_at(&sound)), "{policy:?}: left alone");
        // A little more than a second later, one call goes there, and no other before it has ended.
        tokio::time::advance(Duration::from_millis(1_200)).await;
        snapshot.timeline().advance(clock::now());
        let probes: Vec<Pick> = (0..50).map(|_| picked()).collect();
        let probe = probes.into_iter().filter(|pick| pick.endpoint().is_at(&sick));
        let mut probe: Vec<Pick> = probe.collect();
        assert_eq!(probe.len(), 1, "{policy:?}");
        probe.pop().unwrap().report(Outcome::Success, QUICK);
        let back = (0..200).filter(|_| picked().endpoint().is_at(&sick)).count();
        assert!(back > 20, "{policy:?}: {back} of 200");
    }
}
