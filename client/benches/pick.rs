//! The cost of a pick, with its guard dropped again, for each policy and several sizes. Beside it,
//! in the same run, tower's balancer for a call that does nothing, alone and behind the buffer
//! without which it can't be shared. No registry, no network.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock as its users would")]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use divan::Bencher;
use futures_util::FutureExt;
use tokio::runtime;
use tower::{
    Service as _, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
};
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

#[divan::bench(args = SIZES)]
fn random(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, &service(size, Policy::Random, |_| 100));
}

#[divan::bench(args = SIZES)]
fn rendezvous(bencher: Bencher<'_, '_>, size: usize) {
    let service = service(size, Policy::Rendezvous, |_| 100);
    let mut key = 0_u64;
    bencher.bench_local(|| {
        key += 1;
        let context = PickContext::new().key(key.to_ne_bytes());
        drop(service.pick(&context).expect("the service has instances"));
    });
}

/// Half of them in the caller's zone.
#[divan::bench(args = SIZES)]
fn peak_ewma_in_a_zone(bencher: Bencher<'_, '_>, size: usize) {
    let zoned = |index: usize| Instance {
        id: format!("orders-{index:05}"),
        zone: ["east", "west"][index % 2].into(),
        status: Status::Up.into(),
        ..Instance::default()
    };
    bench(bencher, &Service::fixed((0..size).map(zoned)).with_zone("west"));
}

/// An instance that answers at once.
#[derive(Clone)]
struct AtOnce;

impl tower::Service<()> for AtOnce {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

type Towers = Balance<ServiceList<Vec<PeakEwma<AtOnce>>>, ()>;

fn towers(size: usize) -> Towers {
    let measured = || {
        let (first, decay) = (Duration::from_millis(1), 1e10);
        PeakEwma::new(AtOnce, first, decay, CompleteOnResponse::default())
    };
    Balance::new(ServiceList::new((0..size).map(|_| measured()).collect::<Vec<_>>()))
}

#[divan::bench(args = SIZES)]
fn towers_p2c(bencher: Bencher<'_, '_>, size: usize) {
    let mut balance = towers(size);
    bencher.bench_local(|| {
        let ready = balance.ready().now_or_never().expect("all are ready").expect("none fails");
        ready.call(()).now_or_never().expect("answered at once").expect("none fails");
    });
}

#[divan::bench(args = SIZES)]
fn towers_p2c_buffered(bencher: Bencher<'_, '_>, size: usize) {
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    let buffered = runtime.block_on(async { Buffer::new(towers(size), 1_024) });
    bencher.bench_local(|| {
        runtime.block_on(async {
            let mut buffered = buffered.clone();
            let ready = buffered.ready().await.expect("none fails");
            ready.call(()).await.expect("none fails");
        });
    });
}
