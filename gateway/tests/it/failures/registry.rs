//! Requests while the registry is unreachable or restarts.

use crate::support::{Gateway, act, orders, soon, until};

async fn goes_on(gateway: &Gateway) {
    for _ in 0..50 {
        assert_eq!(gateway.get("/orders").await.status, 200);
    }
}

#[tokio::test]
async fn requests_succeed_while_the_registry_is_unreachable() {
    let gateway = Gateway::new("").await;
    let _a = orders(&gateway).await;
    assert_eq!(gateway.get("/orders").await.status, 200);
    gateway.registry.outage();
    soon(gateway.registry.until(|registry| registry.watchers() == 0)).await;
    goes_on(&gateway).await;
}

#[tokio::test]
async fn new_service_is_not_found_while_the_registry_is_unreachable() {
    let gateway = Gateway::new("").await;
    let _a = orders(&gateway).await;
    until(async || gateway.operator("/health/ready").await.status == 200).await;
    gateway.registry.outage();
    soon(gateway.registry.until(|registry| registry.watchers() == 0)).await;
    let answer = gateway.get("/orders").await;
    assert_eq!(answer.status, 503, "nobody knows that there is no such service");
    assert!(answer.header("retry-after").is_some());
    gateway.registry.restore();
    until(async || gateway.get("/orders").await.status == 200).await;
}

#[tokio::test]
async fn requests_succeed_when_the_registry_restarts_empty() {
    let gateway = Gateway::new("").await;
    let _a = orders(&gateway).await;
    assert_eq!(gateway.get("/orders").await.status, 200);
    let watchers = gateway.registry.watchers();
    gateway.registry.outage();
    soon(gateway.registry.until(|registry| registry.watchers() == 0)).await;
    gateway.registry.forget();
    gateway.registry.restore();
    soon(gateway.registry.until(|registry| registry.watchers() == watchers)).await;
    assert!(gateway.registry.instances("orders").is_empty());
    goes_on(&gateway).await;
    // Another one has found its way to it before the first.
    let b = gateway.instance("orders", "b", act::echo).await;
    until(async || {
        goes_on(&gateway).await;
        !b.seen().is_empty()
    })
    .await;
}
