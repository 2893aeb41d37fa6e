//! Metrics through the `metrics` facade.

use std::{collections::BTreeMap, time::Duration};

use metrics::set_default_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use waypost_client::{
    Freshness, Instance, NoInstance, Outcome, PickContext, Registration, Service, fake,
    proto::Status,
};

/// The metrics of the service `orders` so far, by name, and by outcome where there is one; for
/// histograms, the number of values. Counts are those since the last call.
fn told(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let told = snapshotter.snapshot().into_vec().into_iter();
    told.map(|(key, _, _, value)| {
        let label = |name| {
            let mut labels = key.key().labels();
            labels.find_map(|label| (label.key() == name).then(|| label.value().to_owned()))
        };
        assert_eq!(label("namespace").unwrap(), "default");
        assert_eq!(label("service").unwrap(), "orders");
        let outcome = label("outcome").map(|outcome| format!(" {outcome}"));
        let name = key.key().name().strip_prefix("waypost_client_").unwrap().to_owned();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.0,
            DebugValue::Histogram(values) => values.len() as f64,
        };
        (name + &outcome.unwrap_or_default(), value)
    })
    .collect()
}

#[test]
fn picks_calls_and_ejections_are_counted() {
    let recorder = DebuggingRecorder::new();
    let _installed = set_default_local_recorder(&recorder);
    let up = |id: &str| Instance {
        service: "orders".into(),
        id: id.into(),
        status: Status::Up.into(),
        ..Instance::default()
    };
    let service = Service::fixed([up("a"), up("b")]);
    let pick = || service.pick(&PickContext::new()).unwrap();
    let ongoing = (pick(), pick());
    pick().report(Outcome::Success, Duration::from_millis(2));
    while service.pick(&PickContext::new().healthy_only()).is_ok() {
        pick().report(Outcome::Failure, Duration::from_millis(2));
    }
    let told = told(&recorder.snapshotter());
    assert_eq!(told["ejections_total"], 2.0);
    assert_eq!(told["calls_in_flight"], 2.0);
    assert_eq!(told["call_seconds success"], 1.0);
    let failures = told["call_seconds failure"];
    assert!(failures >= 10.0, "{told:?}");
    // The two in flight, the successful one, and two for each failure.
    assert_eq!(told["picks_total"], 3.0 + 2.0 * failures);
    assert_eq!(told["picks_failed_total"], 1.0);
    drop(ongoing);
    assert_eq!(self::told(&recorder.snapshotter())["calls_in_flight"], -2.0);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn staleness_is_a_gauge() {
    let recorder = DebuggingRecorder::new();
    let _installed = set_default_local_recorder(&recorder);
    let registry = fake::Registry::new();
    let client = registry.client();
    let orders = client.service("orders");
    let none = orders.pick(&PickContext::new()).unwrap_err();
    assert_eq!(none, NoInstance::NotReady);
    orders.ready().await.unwrap();
    let mut freshness = orders.freshness();
    freshness.wait_for(|freshness| *freshness == Freshness::Live).await.unwrap();
    registry.join(Registration::new("orders", "10.0.0.1", 80).id("a"));
    while orders.pick(&PickContext::new()).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = told(&recorder.snapshotter());
    assert_eq!(before["view_stale_seconds"], 0.0);
    registry.outage();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let age = told(&recorder.snapshotter())["view_stale_seconds"];
    assert!((50.0..61.0).contains(&age), "as of the last attempt: {age}");
    registry.restore();
    freshness.wait_for(|freshness| *freshness == Freshness::Live).await.unwrap();
    assert_eq!(told(&recorder.snapshotter())["view_stale_seconds"], 0.0);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn names_without_instances_leave_no_series() {
    let recorder = DebuggingRecorder::new();
    let _installed = set_default_local_recorder(&recorder);
    let registry = fake::Registry::new();
    let client = registry.client();
    for name in ["made-up", "made-up-2"] {
        client.service(name).ready().await.unwrap();
    }
    registry.outage();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(told(&recorder.snapshotter()).is_empty());
}
