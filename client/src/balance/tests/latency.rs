//! Shares by latency, weight and load, at once and over time.

use std::time::Duration;

use super::{ANY, QUICK, balancer, candidates, shares};
use crate::{
    balance::{Pick, Policy},
    endpoint::Outcome,
    runtime::clock,
};

#[tokio::test(start_paused = true)]
async fn a_slow_instance_gets_few_calls() {
    let slow =
        |index| (Outcome::Success, if index == 3 { Duration::from_millis(200) } else { QUICK });
    let shares = shares(Policy::PeakEwma, 10, 1_000, slow);
    assert!(shares[3] <= 5, "{shares:?}");
    let least = shares.iter().enumerate().filter(|(index, _)| *index != 3).map(|(_, count)| count);
    assert!(least.min() > Some(&60), "the others share alike: {shares:?}");
}

#[tokio::test(start_paused = true)]
async fn differences_below_a_millisecond_do_not_count() {
    let noisy = |index: usize| (Outcome::Success, Duration::from_micros(300 + 60 * index as u64));
    let shares = shares(Policy::PeakEwma, 10, 10_000, noisy);
    assert!(shares.iter().all(|share| (850..1_150).contains(share)), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn weights_hold_for_equal_latencies() {
    let candidates = candidates(&[100, 300]);
    let balancer = balancer(Policy::PeakEwma);
    let mut heavy = 0;
    for _ in 0..10_000 {
        let pick = balancer.pick(&candidates, &ANY).unwrap();
        heavy += usize::from(pick.instance().id == "00001");
        pick.report(Outcome::Success, QUICK);
    }
    assert!((7_350..7_650).contains(&heavy), "{heavy}");
}

/// Returns the shares of calls, `in_flight` of which run at all times. An instance takes so many
/// milliseconds, 30 % more or less; now and then 30 ms more, and the first time another 15.
async fn closed_loop(
    policy: Policy,
    weights: &[u32],
    millis: &[f64],
    in_flight: usize,
    calls: usize,
) -> Vec<f64> {
    let (candidates, balancer) = (candidates(weights), balancer(policy));
    let mut random = fastrand::Rng::with_seed(23);
    let mut counts = vec![0; weights.len()];
    let mut under_way: Vec<(tokio::time::Instant, Duration, Pick)> = Vec::new();
    for _ in 0..calls {
        let pick = balancer.pick(&candidates, &ANY).unwrap();
        let index: usize = pick.instance().id.parse().unwrap();
        let first = if counts[index] == 0 { 15.0 } else { 0.0 };
        let pause = if random.u32(..100) == 0 { 30.0 } else { 0.0 };
        let took = millis[index] * (0.7 + 0.6 * random.f64()) + first + pause;
        counts[index] += 1;
        let took = Duration::from_secs_f64(took / 1e3);
        under_way.push((clock::now() + took, took, pick));
        if under_way.len() == in_flight {
            let ends = under_way.iter().map(|(end, ..)| *end);
            let (next, end) = ends.enumerate().min_by_key(|(_, end)| *end).unwrap();
            tokio::time::advance(end.saturating_duration_since(clock::now())).await;
            let (_, took, pick) = under_way.swap_remove(next);
            pick.report(Outcome::Success, took);
        }
    }
    counts.iter().map(|count| f64::from(*count) / calls as f64).collect()
}

const WEIGHTS: [[u32; 2]; 6] = [[10, 90], [90, 10], [1, 3], [40, 60], [1, 1_000], [100, 100]];

#[tokio::test(start_paused = true)]
async fn at_low_traffic_small_differences_of_latency_leave_shares_to_the_weights() {
    for weights in WEIGHTS {
        for millis in [[3.0, 5.0], [5.0, 3.0], [0.2, 0.4], [40.0, 40.0]] {
            for policy in [Policy::PeakEwma, Policy::LeastRequest] {
                assert_by_weight(policy, weights, millis, 1, 0.05).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn shares_follow_weights_under_load_at_equal_latencies() {
    for weights in WEIGHTS {
        for (millis, in_flight) in [(5.0, 4), (40.0, 4), (40.0, 9), (5.0, 40), (40.0, 40)] {
            // Few calls can't be shared evenly.
            let within = 0.03 + 0.5 / in_flight as f64;
            for policy in [Policy::PeakEwma, Policy::LeastRequest] {
                assert_by_weight(policy, weights, [millis; 2], in_flight, within).await;
            }
        }
    }
}

async fn assert_by_weight(
    policy: Policy,
    weights: [u32; 2],
    millis: [f64; 2],
    in_flight: usize,
    within: f64,
) {
    let shares = closed_loop(policy, &weights, &millis, in_flight, 3_000).await;
    let expected = f64::from(weights[0]) / f64::from(weights[0] + weights[1]);
    let is_close = (shares[0] - expected).abs() < within;
    assert!(is_close, "{policy:?}, {weights:?}, {millis:?} ms, {in_flight} at once: {shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clearly_slower_instance_gets_less_at_any_load() {
    for (weights, most) in [([100, 100], 0.04), ([200, 100], 0.06), ([300, 100], 0.2)] {
        for in_flight in [1, 2, 8] {
            let millis = [30.0, 3.0];
            let shares = closed_loop(Policy::PeakEwma, &weights, &millis, in_flight, 3_000).await;
            assert!(shares[0] < most, "{weights:?}, {in_flight} at once: {shares:?}");
        }
    }
    let mut millis = [2.0; 10];
    millis[3] = 20.0;
    let shares = closed_loop(Policy::PeakEwma, &[100; 10], &millis, 24, 5_000).await;
    assert!(shares[3] < 0.02, "{shares:?}");
    assert!(shares.iter().all(|share| *share < 0.13), "the others share alike: {shares:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_fails_now_and_then_gets_less_however_fast_it_is() {
    for micros in [100, 5_000] {
        let (candidates, balancer) = (candidates(&[100; 3]), balancer(Policy::PeakEwma));
        let (took, mut calls) = (Duration::from_micros(micros), 0);
        for _ in 0..3_000 {
            let pick = balancer.pick(&candidates, &ANY).unwrap();
            tokio::time::advance(took).await;
            let is_first = pick.instance().id == "00000";
            calls += usize::from(is_first);
            let failed = is_first && calls % 3 == 0;
            pick.report(if failed { Outcome::Failure } else { Outcome::Success }, took);
        }
        assert!(calls < 300, "{calls} of 3,000, of {micros} µs each");
    }
}
