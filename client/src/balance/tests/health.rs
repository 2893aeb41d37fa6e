//! Health: ejection, probes and slow start.

use std::{sync::Arc, time::Duration};

use super::{ANY, POLICIES, QUICK, balancer, candidates, shares, snapshot};
use crate::{
    balance::{NoInstance, Pick, Policy, Selection},
    endpoint::Outcome,
    runtime::clock,
};

#[tokio::test(start_paused = true)]
async fn an_instance_that_fails_fast_attracts_no_calls() {
    for policy in POLICIES {
        let failing = |index| match index {
            3 => (Outcome::Failure, Duration::from_micros(100)),
            _ => (Outcome::Success, QUICK),
        };
        let shares = shares(policy, 10, 1_000, failing);
        assert!(shares[3] <= 5, "{policy:?}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_are_called_while_most_fail() {
    // Rendezvous hashing limits this by calls in flight.
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
async fn one_probe_readmits_an_instance() {
    for policy in POLICIES {
        let candidates = candidates(&[100, 100]);
        let places = candidates.preferred.as_slice();
        let balancer = balancer(policy);
        let [sound, sick] = [0, 1].map(|index| Arc::clone(&places[index]));
        sick.record(Outcome::Unreachable, Duration::ZERO);
        let picked = || balancer.pick(&candidates, &ANY).unwrap();
        assert!((0..50).all(|_| picked().endpoint().is_at(&sound)), "{policy:?}: left alone");
        // A little over a second later one call goes there, and no other before it has ended.
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

#[tokio::test(start_paused = true)]
async fn healthy_only_picks_no_ejected_instance() {
    for policy in POLICIES {
        let (candidates, balancer) = (candidates(&[100; 4]), balancer(policy));
        let healthy = ANY.healthy_only();
        let places = candidates.preferred.as_slice();
        for endpoint in &places[..3] {
            endpoint.record(Outcome::Unreachable, Duration::ZERO);
        }
        for _ in 0..200 {
            let pick = balancer.pick(&candidates, &healthy).unwrap();
            assert_eq!(pick.instance().id, "00003", "{policy:?}");
        }
        places[3].record(Outcome::Unreachable, Duration::ZERO);
        let why = balancer.pick(&candidates, &healthy).unwrap_err();
        assert_eq!(why, NoInstance::AllEjected { instances: 4 }, "{policy:?}");
        assert!(balancer.pick(&candidates, &ANY).is_ok(), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_reaches_its_share_gradually() {
    for policy in POLICIES {
        let slow_start = Duration::from_secs(10);
        let selection = Selection { slow_start, ..Selection::default() };
        let candidates = selection.select(&snapshot(&[100; 4]));
        let origin = clock::now();
        candidates.advance(origin);
        candidates.preferred.as_slice()[3].begin_slow_start(None, 1);
        let balancer = balancer(policy);
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
async fn all_share_the_turns_of_an_ejected_instance() {
    let (candidates, balancer) = (candidates(&[100; 3]), balancer(Policy::RoundRobin));
    candidates.preferred.as_slice()[0].record(Outcome::Unreachable, Duration::ZERO);
    let picks = (0..4_000).map(|_| balancer.pick(&candidates, &ANY).unwrap());
    let second = picks.filter(|pick| pick.instance().id == "00001").count();
    assert!((1_850..2_150).contains(&second), "{second} of 4,000");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_takes_no_connection_is_ejected_at_once() {
    for policy in POLICIES {
        let (candidates, balancer) = (candidates(&[100; 3]), balancer(policy));
        let pick = || balancer.pick(&candidates, &ANY).unwrap();
        let first = pick();
        let id = first.instance().id.clone();
        first.report(Outcome::Unreachable, Duration::ZERO);
        assert!((0..100).all(|_| pick().instance().id != id), "{policy:?}");
    }
}
