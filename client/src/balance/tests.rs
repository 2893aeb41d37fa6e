//! Distribution, weights and load, with seeds that replay.

use super::*;
use crate::proto::{Instance, Status};

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
    let counts = counts(2, 100_000, |_| {
        power_of_two::choose(candidates, weights, random.u64(..), random.u64(..))
    });
    assert!((74_000..76_000).contains(&counts[1]), "{counts:?}");
}

#[test]
fn the_busier_of_two_is_left_alone() {
    let snapshot = snapshot(&[100, 100]);
    let (candidates, weights) = snapshot.candidates();
    candidates[0].begin();
    let mut random = seed();
    for _ in 0..1_000 {
        let chosen = power_of_two::choose(candidates, weights, random.u64(..), random.u64(..));
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
        let chosen = power_of_two::choose(candidates, weights, random.u64(..), random.u64(..));
        assert_eq!(chosen, 1);
    }
}

#[test]
fn calls_that_last_are_spread_evenly() {
    let snapshot = snapshot(&[100; 50]);
    let (candidates, weights) = snapshot.candidates();
    let mut random = seed();
    for _ in 0..5_000 {
        let chosen = power_of_two::choose(candidates, weights, random.u64(..), random.u64(..));
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
        let chosen = power_of_two::choose(candidates, weights, random.u64(..), random.u64(..));
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
        tiny += usize::from(
            power_of_two::choose(candidates, weights, random.u64(..), random.u64(..)) == 0,
        );
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
    for policy in [Policy::PowerOfTwo, Policy::RoundRobin] {
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
    for policy in [Policy::PowerOfTwo, Policy::RoundRobin] {
        let balancer = Balancer::new(policy);
        let only = |endpoint: &Endpoint| endpoint.instance().id == "00117";
        let pick = balancer.pick_where(&snapshot, only).unwrap().unwrap();
        assert_eq!(pick.instance().id, "00117");
        assert!(balancer.pick_where(&snapshot, |_| false).unwrap().is_none());
    }
}
