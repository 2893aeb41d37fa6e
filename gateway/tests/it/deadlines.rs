//! How long an answer may take, and who is told of it.

use http::Request;
use tonic::body::Body;

use crate::support::{Gateway, Seen, act, orders};

const CONFIG: &str = "
    implicit = true
    limits.timeout = '40s'
    [[routes]]
    path = '/v1'
    service = 'orders'
    timeout = '5s'
    [[routes]]
    path = '/hanging'
    service = 'hanging'
    timeout = '10m'";

fn get(path: &str, timeout_ms: &str) -> Request<Body> {
    let request = Request::get(path).header("x-waypost-timeout-ms", timeout_ms);
    request.body(Body::empty()).unwrap()
}

fn left(seen: &Seen) -> u64 {
    seen.header("x-waypost-timeout-ms").unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_instance_sees_how_much_time_is_left() {
    let gateway = Gateway::new(CONFIG).await;
    let instance = orders(&gateway).await;
    gateway.get("/v1").await;
    assert!((1..=5_000).contains(&left(&instance.last())));
    gateway.get("/orders").await;
    assert!((5_001..=40_000).contains(&left(&instance.last())));
}

#[tokio::test]
async fn a_caller_may_have_less_patience_and_not_more() {
    let gateway = Gateway::new(CONFIG).await;
    let instance = orders(&gateway).await;
    for (asked, most) in [("3000", 3_000), ("3600000", 5_000), ("soon", 5_000), ("-1", 5_000)] {
        assert_eq!(gateway.send(get("/v1", asked)).await.status, 200);
        let left = left(&instance.last());
        assert!((1..=most).contains(&left), "{left} of {asked}");
        if most == 5_000 {
            assert!(left > 3_000, "{left} of {asked}");
        }
    }
}

#[tokio::test]
async fn a_caller_is_not_kept_longer_than_it_asked_for() {
    let gateway = Gateway::new(CONFIG).await;
    let _instance = gateway.instance("hanging", "a", act::hang).await;
    assert_eq!(gateway.send(get("/hanging", "50")).await.status, 504);
    assert_eq!(gateway.send(get("/hanging", "0")).await.status, 504);
}
