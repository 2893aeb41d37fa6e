//! The operators' port: metrics, liveness and readiness.

use std::time::Duration;

use waypost_client::fake::Registry;

use crate::support::{Gateway, Setup, act, soon, until};

#[tokio::test]
async fn metrics_have_each_service_and_instance() {
    let gateway = Gateway::new("").await;
    let _instance = gateway.instance("measured", "m-1", act::echo).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/measured").await.status, 200);
    }
    gateway.told(3).await;
    let figures = gateway.operator("/metrics").await;
    assert_eq!(figures.status, 200);
    for line in [
        "waypost_gateway_requests_total{service=\"measured\",status=\"2xx\"} 3",
        "waypost_gateway_instance_requests_total{service=\"measured\",instance=\"m-1\",status=\"2xx\"} 3",
        "waypost_gateway_request_seconds_count{service=\"measured\"} 3",
        "waypost_gateway_instance_seconds_count{service=\"measured\",instance=\"m-1\"} 3",
    ] {
        assert!(figures.text().contains(line), "{line} in\n{}", figures.text());
    }
    assert!(figures.text().contains("waypost_gateway_requests_in_flight"));
}

#[tokio::test]
async fn unknown_names_have_no_metrics() {
    let gateway = Gateway::new("").await;
    gateway.get("/made-up-by-a-stranger").await;
    gateway.told(1).await;
    let figures = gateway.operator("/metrics").await;
    let ours = figures.text().lines().filter(|line| line.starts_with("waypost_gateway_"));
    let told: Vec<_> = ours.filter(|line| line.contains("made-up")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test]
async fn gateway_is_live_at_once_and_ready_once_services_are_loaded() {
    let registry = Registry::new();
    registry.outage();
    let config = "[[routes]]\npath = '/v1'\nservice = 'orders'";
    let setup = Setup { registry, config, ..Setup::default() };
    let gateway = Gateway::set_up(setup).await;
    assert_eq!(gateway.operator("/health/live").await.status, 200);
    let unready = gateway.operator("/health/ready").await;
    assert_eq!(unready.status, 503);
    assert!(unready.text().starts_with("not ready: "), "{}", unready.text());
    gateway.registry.restore();
    until(async || gateway.operator("/health/ready").await.status == 200).await;
    // Once it has been, it stays: what is known stays known.
    gateway.registry.outage();
    soon(gateway.registry.until(|registry| registry.watchers() == 0)).await;
    assert_eq!(gateway.operator("/health/ready").await.status, 200);
}

#[tokio::test]
async fn readiness_waits_for_a_late_registry() {
    let registry = Registry::new();
    registry.delay(Duration::from_millis(300));
    let gateway = Gateway::set_up(Setup { registry, ..Setup::default() }).await;
    let _instance = gateway.instance("orders", "a", act::echo).await;
    assert_eq!(gateway.operator("/health/ready").await.status, 503);
    assert_eq!(gateway.get("/orders").await.status, 200, "the first request waits, and goes on");
    until(async || gateway.operator("/health/ready").await.status == 200).await;
}

fn routes_to<'a>(services: impl IntoIterator<Item = &'a str>) -> String {
    let route = |service| format!("[[routes]]\npath = '/{service}'\nservice = '{service}'\n");
    services.into_iter().map(route).collect()
}

#[tokio::test]
async fn all_services_of_the_routes_are_watched_from_the_start() {
    let registry = Registry::new();
    let names = ["cart", "orders", "payments", "prices", "search", "stock", "users"];
    let config = &routes_to(names);
    let gateway = Gateway::set_up(Setup { registry, config, ..Setup::default() }).await;
    // Each is watched without a probe or a request, as is the first requested service.
    soon(gateway.registry.until(|registry| registry.watchers() > names.len())).await;
    until(async || gateway.operator("/health/ready").await.status == 200).await;
}

#[tokio::test]
async fn reload_keeps_readiness_and_watches_added_services() {
    let gateway = Gateway::new(&routes_to(["orders"])).await;
    until(async || gateway.operator("/health/ready").await.status == 200).await;
    let before = gateway.registry.watchers();
    gateway.registry.delay(Duration::from_secs(60 * 60));
    gateway.configure(&routes_to(["orders", "late-1", "late-2", "late-3"]));
    // The registry responds to none of the new watches, and the gateway stays ready.
    until(async || gateway.get("/late-1").await.status == 503).await;
    assert_eq!(gateway.operator("/health/ready").await.status, 200);
    gateway.registry.restore();
    gateway.registry.delay(Duration::ZERO);
    let _instance = gateway.instance("late-2", "a", act::echo).await;
    until(async || gateway.get("/late-2").await.status == 200).await;
    gateway.configure(&routes_to(["stock"]));
    soon(gateway.registry.until(|registry| registry.watchers() <= before + 1)).await;
}
