//! Picks: their count, errors and seeds, and endpoints that are not accepted.

use super::{ANY, POLICIES, balancer, candidates};
use crate::{
    balance::{Balancer, NoInstance, Policy},
    endpoint::Endpoint,
};

#[test]
fn a_pick_counts_until_it_is_dropped() {
    let candidates = candidates(&[100]);
    let balancer = balancer(Policy::LeastRequest);
    let endpoint = &candidates.preferred.as_slice()[0];
    let first = balancer.pick(&candidates, &ANY).unwrap();
    let second = balancer.pick(&candidates, &ANY).unwrap();
    assert_eq!(endpoint.in_flight(), 2);
    drop((first, second));
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn an_error_gives_the_reason() {
    for policy in POLICIES {
        let balancer = balancer(policy);
        let why = |weights: &[u32]| balancer.pick(&candidates(weights), &ANY).unwrap_err();
        assert_eq!(why(&[]), NoInstance::Empty);
        let why = why(&[0, 0]);
        assert_eq!(why, NoInstance::NoneServing { instances: 2 });
    }
}

#[test]
fn an_endpoint_that_is_not_accepted_is_not_picked() {
    let candidates = candidates(&[100; 200]);
    for policy in POLICIES {
        let balancer = balancer(policy);
        let only = |endpoint: &Endpoint| endpoint.instance().id == "00117";
        let pick = balancer.pick_where(&candidates, &ANY, only).unwrap().unwrap();
        assert_eq!(pick.instance().id, "00117");
        assert!(balancer.pick_where(&candidates, &ANY, |_| false).unwrap().is_none());
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

#[test]
fn few_accepted_instances_share_calls_by_weight() {
    let weights: Vec<u32> = (0..100).map(|index| if index == 50 { 300 } else { 100 }).collect();
    let candidates = candidates(&weights);
    let two = |endpoint: &Endpoint| ["00049", "00050"].contains(&&*endpoint.instance().id);
    for policy in [Policy::PeakEwma, Policy::Random, Policy::RoundRobin] {
        let balancer = balancer(policy);
        let picks = (0..4_000).map(|_| balancer.pick_where(&candidates, &ANY, two));
        let heavy =
            picks.filter(|pick| pick.as_ref().unwrap().as_ref().unwrap().instance().id == "00050");
        let share = heavy.count() as f64 / 4_000.0;
        assert!((0.7..0.8).contains(&share), "{policy:?}: {share}");
    }
}
