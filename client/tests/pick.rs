//! Proof that a pick allocates nothing, whatever its policy.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use waypost_client::{
    Filter, Instance, NoInstance, Outcome, PickContext, Policy, Service, proto::Status,
};

const POLICIES: [Policy; 5] = [
    Policy::PeakEwma,
    Policy::LeastRequest,
    Policy::Random,
    Policy::RoundRobin,
    Policy::Rendezvous,
];

fn service() -> Service {
    Service::fixed((0..100).map(|index| Instance {
        service: "orders".into(),
        id: format!("orders-{index:03}"),
        host: "10.0.0.1".into(),
        zone: ["east", "west"][index % 2].into(),
        status: Status::Up.into(),
        weight: Some(100 + index as u32),
        ..Instance::default()
    }))
}

/// The number of allocations of 1,000 picks.
fn allocations(service: &Service, context: &PickContext<'_>) -> u64 {
    let pick = || {
        let pick = service.pick(context).unwrap();
        pick.report(Outcome::Success, Duration::from_millis(2));
    };
    // What a thread has once, it has by then.
    pick();
    allocation_counter::measure(|| (0..1_000).for_each(|_| pick())).count_total
}

#[test]
fn pick_and_report_allocate_nothing() {
    assert_ne!(allocation_counter::measure(|| drop(Box::new(7))).count_total, 0, "it counts");
    let west = Filter { zones: vec!["west".into()], ..Filter::default() };
    let selected = service().with_filter(west.clone()).with_subset(10, "me");
    let selected = selected.with_slow_start(Duration::from_secs(10));
    for policy in POLICIES {
        for service in [service(), service().with_zone("west"), selected.clone()] {
            let service = service.with_policy(policy);
            for context in [
                PickContext::new(),
                PickContext::new().key("customer 17"),
                PickContext::new().filter(&west).healthy_only(),
            ] {
                assert_eq!(allocations(&service, &context), 0, "{policy:?} {context:?}");
            }
        }
    }
}

#[test]
fn failed_pick_allocates_nothing() {
    let nowhere = Filter { zones: vec!["nowhere".into()], ..Filter::default() };
    let (service, context) = (service(), PickContext::new().filter(&nowhere));
    let none = || {
        assert_eq!(service.pick(&context).unwrap_err(), NoInstance::AllFiltered { serving: 100 });
    };
    none();
    assert_eq!(allocation_counter::measure(none).count_total, 0);
}
