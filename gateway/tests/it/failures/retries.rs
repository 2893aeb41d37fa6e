//! Retries, hedges and the requests that get neither.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use tonic::body::Body;

use crate::support::{Answer, Gateway, Instance, act, full, soon, until, whole};

/// An instance of `orders` that dies of each first of `deaths` requests, and then serves.
async fn dies_first(gateway: &Gateway, deaths: usize) -> Instance {
    let asked = Arc::new(AtomicUsize::new(0));
    let act = move |request: Request<Incoming>| {
        let asked = asked.fetch_add(1, Ordering::Relaxed);
        async move { if asked < deaths { act::die(request).await } else { act::echo(request).await } }
    };
    gateway.instance("orders", "a", act).await
}

fn post(path: &str) -> Request<Body> {
    Request::post(path).body(full("pay")).unwrap()
}

#[tokio::test]
async fn lost_get_is_retried() {
    let gateway = Gateway::new("").await;
    let instance = dies_first(&gateway, 1).await;
    assert_eq!(gateway.get("/orders").await.status, 200);
    let attempts: Vec<_> = instance
        .seen()
        .iter()
        .map(|seen| seen.header("x-waypost-previous-attempts").map(str::to_owned))
        .collect();
    assert_eq!(attempts, [None, Some("1".into())]);
    assert_eq!(gateway.told(1).await[0]["attempts"], 2);
}

#[tokio::test]
async fn route_can_disable_retries() {
    let gateway = Gateway::new("[[routes]]\npath = '/v1'\nservice = 'orders'\nretries = 0").await;
    let instance = dies_first(&gateway, 1).await;
    assert_eq!(gateway.get("/v1").await.status, 502);
    assert_eq!(instance.seen().len(), 1);
}

#[tokio::test]
async fn route_can_set_the_number_of_retries() {
    let gateway = Gateway::new("[[routes]]\npath = '/v1'\nservice = 'orders'\nretries = 3").await;
    let instance = dies_first(&gateway, 3).await;
    assert_eq!(gateway.get("/v1").await.status, 200);
    assert_eq!(instance.seen().len(), 4);
}

#[tokio::test]
async fn post_is_retried_only_if_the_route_allows_it() {
    let gateway =
        Gateway::new("[[routes]]\npath = '/v1'\nservice = 'orders'\nidempotent = true").await;
    let instance = dies_first(&gateway, 1).await;
    let answer = gateway.send(post("/v1")).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "pay"));
    assert_eq!(instance.seen().len(), 2);
    let gateway = Gateway::new("").await;
    let instance = dies_first(&gateway, 1).await;
    assert_eq!(gateway.send(post("/orders")).await.status, 502);
    assert_eq!(instance.seen().len(), 1);
}

#[tokio::test]
async fn unavailable_instance_is_retried_elsewhere() {
    let gateway = Gateway::new("").await;
    let busy = async |_| Ok(Response::builder().status(503).body(Body::empty()).unwrap());
    let busy = gateway.instance("orders", "busy", busy).await;
    let _well = gateway.instance("orders", "well", act::echo).await;
    until(async || {
        let status = gateway.get("/orders").await.status;
        // Alone at first, for all that the gateway knows.
        assert!(status == 200 || gateway.registry.instances("orders").len() < 2);
        !busy.seen().is_empty()
    })
    .await;
}

#[tokio::test]
async fn slow_request_is_hedged() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/v1'
        service = 'orders'
        hedge = '20ms'
        policy = 'round-robin'",
    )
    .await;
    let _quick = gateway.instance("orders", "quick", act::echo).await;
    let slow = gateway.instance("orders", "slow", act::hang).await;
    let mut asked = 0;
    until(async || {
        assert_eq!(gateway.get("/v1").await.status, 200);
        asked += 1;
        !slow.seen().is_empty()
    })
    .await;
    let line = gateway.told(asked).await.pop().unwrap();
    assert_eq!((&line["instance"], &line["attempts"]), (&"quick".into(), &2.into()));
}

#[tokio::test]
async fn instance_at_its_limit_gets_no_request() {
    let gateway = Gateway::new("[[routes]]\npath = '/v1'\nservice = 'orders'\nin_flight = 1").await;
    let (release, released) = watch::channel(false);
    let hold = move |request: Request<Incoming>| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            act::echo(request).await
        }
    };
    let instance = gateway.instance("orders", "a", hold).await;
    let caller = gateway.http1();
    let held = tokio::spawn(async move { whole(caller.send(post("/v1")).await).await });
    instance.until_asked(1).await;
    let full = gateway.get("/v1").await;
    assert_eq!(full.status, 503);
    assert_eq!(full.json()["title"], "Busy");
    assert_eq!(full.header("retry-after"), Some("1"));
    release.send(true).unwrap();
    assert_eq!(soon(held).await.unwrap().status, 200);
    until(async || gateway.get("/v1").await.status == 200).await;
}

/// Sends requests at the same time.
async fn many(gateway: &Gateway, method: Method, path: &str, count: usize) -> Vec<Answer> {
    let requests = (0..count).map(|_| {
        let request = Request::builder().method(&method).uri(path).body(Body::empty()).unwrap();
        gateway.send(request)
    });
    soon(join_all(requests)).await
}

#[tokio::test]
async fn silent_instance_fails_no_safe_request() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/v1'
        service = 'orders'
        retries = 2
        timeout = '2400ms'",
    )
    .await;
    let silent = gateway.instance("orders", "silent", act::hang).await;
    let _well = [
        gateway.instance("orders", "b", act::echo).await,
        gateway.instance("orders", "c", act::echo).await,
    ];
    for method in [Method::HEAD, Method::OPTIONS, Method::GET] {
        for _ in 0..4 {
            let answers = many(&gateway, method.clone(), "/v1/7", 10).await;
            assert!(answers.iter().all(|answer| answer.status == 200), "{method}");
        }
    }
    // By now it is ejected.
    let before = silent.seen().len();
    assert!(before > 0);
    many(&gateway, Method::GET, "/v1/7", 50).await;
    assert_eq!(silent.seen().len(), before);
}

#[tokio::test]
async fn unsafe_request_is_at_one_instance_at_a_time() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/v1'
        service = 'orders'
        hedge = '20ms'
        timeout = '600ms'",
    )
    .await;
    let a = gateway.instance("orders", "a", act::hang).await;
    let b = gateway.instance("orders", "b", act::hang).await;
    for method in [Method::PUT, Method::DELETE, Method::POST] {
        let before = a.seen().len() + b.seen().len();
        let answers = many(&gateway, method.clone(), "/v1", 1).await;
        assert_eq!(answers[0].status, 504, "{method}");
        assert_eq!(a.seen().len() + b.seen().len() - before, 1, "{method}");
    }
}

#[tokio::test]
async fn uniformly_slow_service_responds_and_ejects_no_instance() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/v1'
        service = 'reports'
        retries = 2
        timeout = '1500ms'",
    )
    .await;
    let slow = async |request| {
        tokio::time::sleep(std::time::Duration::from_millis(900)).await;
        act::echo(request).await
    };
    let _a = gateway.instance("reports", "a", slow).await;
    let _b = gateway.instance("reports", "b", slow).await;
    for _ in 0..4 {
        let answers = many(&gateway, Method::GET, "/v1", 8).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    }
    let figures = gateway.operator("/metrics").await;
    let ejections = figures.text().lines().find(|line| {
        line.starts_with("waypost_client_ejections_total") && line.contains("\"reports\"")
    });
    assert!(ejections.is_none_or(|line| line.ends_with(" 0")), "{ejections:?}");
}
