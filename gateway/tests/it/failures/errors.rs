//! Responses without an instance's: a problem document that names the service and the request, by
//! the id of the header and the access log.

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tonic::body::Body;

use crate::support::{Answer, Gateway, act, full, orders, pieces, until, whole};

/// Checks that a response is a problem document, and returns its access log line.
async fn problem(
    gateway: &Gateway,
    answer: &Answer,
    status: u16,
    service: Option<&str>,
) -> serde_json::Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let id = answer.header("x-request-id").unwrap();
    let document = answer.json();
    assert_eq!(document["status"], status);
    assert_eq!(document["request_id"], id);
    assert_eq!(document["service"].as_str(), service);
    for member in ["title", "detail"] {
        assert!(!document[member].as_str().unwrap().is_empty(), "{document}");
    }
    let line = gateway.line_of(id).await;
    assert_eq!(line["status"], status);
    let told = line["problem"].as_str().unwrap();
    assert!(told.starts_with(document["title"].as_str().unwrap()), "{told}");
    line
}

#[tokio::test]
async fn unknown_service_is_not_found() {
    let gateway = Gateway::new("").await;
    let answer = gateway.get("/nobody/7").await;
    let line = problem(&gateway, &answer, 404, Some("nobody")).await;
    assert_eq!((&line["attempts"], line["instance"].is_null()), (&0.into(), true));
    problem(&gateway, &gateway.get("/").await, 404, None).await;
}

#[tokio::test]
async fn service_without_instances_is_unavailable() {
    let gateway = Gateway::new("").await;
    let _instance = orders(&gateway).await;
    assert_eq!(gateway.get("/orders").await.status, 200);
    gateway.registry.leave("orders", "a");
    until(async || gateway.get("/orders").await.status != 200).await;
    let answer = gateway.get("/orders").await;
    problem(&gateway, &answer, 503, Some("orders")).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn unknown_service_of_a_route_is_unavailable() {
    let gateway = Gateway::new("[[routes]]\npath = '/v1'\nservice = 'orders'").await;
    let answer = gateway.get("/v1").await;
    problem(&gateway, &answer, 503, Some("orders")).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn missing_response_is_a_504() {
    let gateway =
        Gateway::new("[[routes]]\npath = '/v1'\nservice = 'orders'\ntimeout = '50ms'").await;
    let _instance = gateway.instance("orders", "a", act::hang).await;
    until(async || {
        let answer = gateway.get("/v1").await;
        let line = problem(&gateway, &answer, 504, Some("orders")).await;
        // The search for the instance may have taken too long.
        (&line["instance"], &line["attempts"]) == (&"a".into(), &1.into())
    })
    .await;
}

#[tokio::test]
async fn request_that_may_have_been_served_is_not_retried() {
    let gateway = Gateway::new("").await;
    let instance = gateway
        .instance("orders", "a", async |request: Request<Incoming>| {
            // In the middle of the body.
            let begin = request.into_body().frame().await;
            begin.unwrap().unwrap();
            Err::<Response<Body>, _>("dies")
        })
        .await;
    let request = Request::post("/orders").body(pieces(b"pay", 2)).unwrap();
    let answer = gateway.send(request).await;
    let line = problem(&gateway, &answer, 502, Some("orders")).await;
    assert_eq!((&line["instance"], &line["attempts"]), (&"a".into(), &1.into()));
    assert_eq!(instance.seen().len(), 1);
}

#[tokio::test]
async fn refused_connection_is_unavailable() {
    let gateway = Gateway::new("").await;
    drop(orders(&gateway).await);
    let answer = gateway.get("/orders").await;
    let line = problem(&gateway, &answer, 503, Some("orders")).await;
    assert_eq!((&line["instance"], &line["attempts"]), (&"a".into(), &0.into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn rate_limited_response_has_retry_after() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/v1'
        service = 'orders'
        rate = { per_second = 1 }",
    )
    .await;
    let instance = orders(&gateway).await;
    let mut answers = Vec::new();
    until(async || {
        answers.push(gateway.get("/v1").await);
        answers.last().unwrap().status != 200
    })
    .await;
    let limited = answers.pop().unwrap();
    problem(&gateway, &limited, 429, Some("orders")).await;
    assert_eq!(limited.header("retry-after"), Some("1"));
    assert_eq!(instance.seen().len(), answers.len(), "the instance is spared");
}

#[tokio::test]
async fn body_over_the_limit_is_refused() {
    let gateway = Gateway::new("limits.body = '1KiB'").await;
    let instance = gateway
        .instance("orders", "a", async |request: Request<Incoming>| {
            let body = request.into_body().collect().await.map_err(|_| "was cut")?;
            Ok(Response::new(full(body.to_bytes())))
        })
        .await;
    for caller in [gateway.http1(), gateway.http2()] {
        for body in [full(vec![7; 1024]), pieces(&[7; 16], 64)] {
            let request = Request::post("/orders").body(body).unwrap();
            assert_eq!(whole(caller.send(request).await).await.body.len(), 1024);
        }
        for body in [full(vec![7; 1025]), pieces(&[7; 16], 65)] {
            let request = Request::post("/orders").body(body).unwrap();
            let answer = whole(caller.send(request).await).await;
            problem(&gateway, &answer, 413, Some("orders")).await;
        }
    }
    assert!(instance.seen().len() <= 6, "where the length is known, nothing is sent");
}

#[tokio::test]
async fn method_without_a_route_is_not_allowed() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/v1'
        service = 'orders'
        methods = ['GET', 'HEAD']",
    )
    .await;
    let answer = gateway.post("/v1", "").await;
    problem(&gateway, &answer, 405, None).await;
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    problem(&gateway, &gateway.get("/orders/a%2Fb").await, 400, None).await;
    assert!(instance.seen().is_empty());
}

#[tokio::test]
async fn head_error_has_no_document() {
    let gateway = Gateway::new("").await;
    let request = Request::head("/nobody").body(Body::empty()).unwrap();
    let answer = gateway.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (404, ""));
}
