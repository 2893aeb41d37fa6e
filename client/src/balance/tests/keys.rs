//! Keys: their owners, and the load of these.

use std::{sync::Arc, time::Duration};

use super::{balancer, candidates};
use crate::{
    balance::{Balancer, Candidates, Pick, PickContext, Policy},
    endpoint::Outcome,
    runtime::clock,
};

/// Returns the owners of a hundred keys.
fn owners(candidates: &Candidates, balancer: &Balancer) -> Vec<String> {
    let owner = |key: u32| {
        let context = PickContext::new().key(key.to_string());
        balancer.pick(candidates, &context).unwrap().instance().id.clone()
    };
    (0..100).map(owner).collect()
}

#[test]
fn a_key_moves_only_when_its_owner_is_removed() {
    let balancer = balancer(Policy::Rendezvous);
    let elsewhere = Balancer::seeded(Policy::Rendezvous, 8);
    for weights in [vec![100; 20], (1..=20).map(|weight| weight * 10).collect()] {
        let before = owners(&candidates(&weights), &balancer);
        assert_eq!(before, owners(&candidates(&weights), &elsewhere));
        // Without the last one.
        let after = owners(&candidates(&weights[..19]), &balancer);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || before == "00019", "moved from {before} to {after}");
        }
        assert!(before.iter().any(|owner| owner == "00019"));
    }
}

#[test]
fn keys_are_shared_out_by_weight() {
    let candidates = candidates(&[100, 300, 600]);
    let balancer = balancer(Policy::Rendezvous);
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
fn one_key_does_not_overload_its_owner() {
    let candidates = candidates(&[100; 10]);
    let balancer = balancer(Policy::Rendezvous);
    let context = PickContext::new().key("the same for all");
    let picks: Vec<Pick> =
        (0..1_000).map(|_| balancer.pick(&candidates, &context).unwrap()).collect();
    let loads: Vec<u32> =
        candidates.preferred.as_slice().iter().map(|endpoint| endpoint.in_flight()).collect();
    assert!(loads.iter().all(|load| *load <= 126), "{loads:?}");
    assert!(loads.iter().any(|load| *load >= 120), "as long as it can it stays: {loads:?}");
    drop(picks);
}

#[tokio::test(start_paused = true)]
async fn keys_of_an_ejected_instance_move_to_others() {
    let candidates = candidates(&[100; 5]);
    let balancer = balancer(Policy::Rendezvous);
    let context = PickContext::new().key("customer 17");
    let owner = balancer.pick(&candidates, &context).unwrap();
    let endpoint = Arc::clone(owner.endpoint());
    drop(owner);
    endpoint.record(Outcome::Unreachable, Duration::ZERO);
    let elsewhere = balancer.pick(&candidates, &context).unwrap();
    assert!(!elsewhere.endpoint().is_at(&endpoint));
}

#[tokio::test(start_paused = true)]
async fn calls_that_pass_an_instance_take_no_probe() {
    let (candidates, balancer) = (candidates(&[100; 20]), balancer(Policy::Rendezvous));
    let owner = |key: u32| {
        let context = PickContext::new().key(key.to_be_bytes());
        balancer.pick(&candidates, &context).unwrap()
    };
    // The first place: each key checks its admission, and few belong to it.
    let first = Arc::clone(&candidates.preferred.as_slice()[0]);
    let key = (0..).find(|key| owner(*key).endpoint().is_at(&first)).unwrap();
    first.record(Outcome::Unreachable, Duration::ZERO);
    tokio::time::advance(Duration::from_secs(2)).await;
    candidates.advance(clock::now());
    for other in (0..1_000).filter(|other| *other != key) {
        if owner(other).endpoint().is_at(&first) {
            return;
        }
    }
    unreachable!("one of a thousand is the probe");
}
