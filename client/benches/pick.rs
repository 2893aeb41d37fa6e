//! What choosing an instance costs, with its guard dropped again, for each policy and several
//! sizes. No registry, no network.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock as its users would")]

use std::time::Instant;

use divan::Bencher;
use waypost_client::{Instance, Outcome, PickContext, Policy, Service, proto::Status};

fn main() {
    divan::main();
}

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

fn service(size: usize, policy: Policy, weight: fn(usize) -> u32) -> Service {
    let instance = |index: usize| Instance {
        service: "orders".into(),
        id: format!("orders-{index:05}"),
        host: "10.0.0.1".into(),
        port: 8080,
        status: Status::Up.into(),
        weight: Some(weight(index)),
        ..Instance::default()
    };
    Service::fixed((0..size).map(instance)).with_policy(policy)
}

fn bench(bencher: Bencher<'_, '_>, service: &Service) {
    bencher.bench(|| drop(service.pick(&PickContext::new()).expect("the service has instances")));
}

#[divan::bench(args = SIZES)]
fn peak_ewma(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::PeakEwma, |_| 100));
}

/// A pick whose call is timed and reported, as a user of its own transport would.
#[divan::bench(args = SIZES)]
fn peak_ewma_with_report(bencher: Bencher<'_, '_>, size: usize) {
    let service = service(size, Policy::PeakEwma, |_| 100);
    bencher.bench(|| {
        let pick = service.pick(&PickContext::new()).expect("the service has instances");
        let began = Instant::now();
        pick.report(Outcome::Success, began.elapsed());
    });
}

#[divan::bench(args = SIZES)]
fn least_request(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::LeastRequest, |_| 100));
}

#[divan::bench(args = SIZES)]
fn least_request_weighted(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::LeastRequest, |index| 50 + index as u32 % 100));
}

#[divan::bench(args = SIZES)]
fn round_robin(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::RoundRobin, |_| 100));
}

#[divan::bench(args = SIZES)]
fn round_robin_weighted(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::RoundRobin, |index| 50 + index as u32 % 100));
}

#[divan::bench(args = SIZES, threads = [2])]
fn peak_ewma_on_two_threads(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::PeakEwma, |_| 100));
}

#[divan::bench(args = SIZES, threads = [2])]
fn least_request_on_two_threads(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::LeastRequest, |_| 100));
}
