//! Tests of picks over all policies. Each policy's own tests are beside it.

mod health;
mod keys;
mod latency;
mod picks;
mod selection;

use std::time::Duration;

use super::{Balancer, Candidates, PickContext, Policy, Selection};
use crate::{
    endpoint::{Outcome, Snapshot},
    proto::{Instance, Status},
};

pub(crate) const POLICIES: [Policy; 5] = [
    Policy::PeakEwma,
    Policy::LeastRequest,
    Policy::Random,
    Policy::RoundRobin,
    Policy::Rendezvous,
];

pub(crate) const ANY: PickContext<'_> = PickContext::new();

pub(crate) const QUICK: Duration = Duration::from_millis(2);

pub(crate) fn instance(id: usize, weight: u32) -> Instance {
    Instance {
        id: format!("{id:05}"),
        host: "10.0.0.1".into(),
        port: 80,
        status: Status::Up.into(),
        weight: Some(weight),
        ..Instance::default()
    }
}

pub(crate) fn snapshot(weights: &[u32]) -> Snapshot {
    Snapshot::new(weights.iter().enumerate().map(|(id, weight)| instance(id, *weight)))
}

/// Selects all instances.
pub(crate) fn candidates(weights: &[u32]) -> Candidates {
    Selection::default().select(&snapshot(weights))
}

/// Creates random numbers that are the same in each run.
pub(crate) fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(17)
}

/// Creates a balancer whose picks are the same in each run, in a test whose time is paused. The
/// jitter of ejections is the thread's.
pub(crate) fn balancer(policy: Policy) -> Balancer {
    fastrand::seed(5);
    Balancer::seeded(policy, 3)
}

/// Returns how often each of `count` equal instances is picked in `calls` calls. `call` gives their
/// outcome.
pub(crate) fn shares(
    policy: Policy,
    count: usize,
    calls: usize,
    call: impl Fn(usize) -> (Outcome, Duration),
) -> Vec<usize> {
    let candidates = candidates(&vec![100; count]);
    let balancer = balancer(policy);
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

/// Counts how often `choose` returns each place.
pub(crate) fn counts(places: usize, calls: u64, mut choose: impl FnMut(u64) -> usize) -> Vec<u64> {
    let mut counts = vec![0; places];
    for call in 0..calls {
        counts[choose(call)] += 1;
    }
    counts
}
