//! The ids of a request, on its way to the instance, back to the caller, and in the access log.

use std::collections::BTreeSet;

use http::{Request, request::Builder};
use serde_json::Value;
use tonic::body::Body;

use crate::support::{Answer, Gateway, act, fed, orders, soon};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

async fn ask(gateway: &Gateway, request: Builder) -> Answer {
    gateway.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn request_ids_are_propagated() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let request = Request::get("/orders").header("traceparent", &parent);
    let request = request.header("tracestate", "a=b").header("x-request-id", "r-7");
    let answer = ask(&gateway, request).await;
    assert_eq!(answer.header("x-request-id"), Some("r-7"));
    let seen = instance.last();
    assert_eq!(seen.header("x-request-id"), Some("r-7"));
    assert_eq!(seen.header("tracestate"), Some("a=b"));
    let passed_on = seen.header("traceparent").unwrap();
    assert_eq!((&passed_on[3..35], &passed_on[53..]), (TRACE, "01"));
    assert_ne!(passed_on, parent, "the gateway is the parent");
    let line = &gateway.told(1).await[0];
    assert_eq!((&line["request_id"], &line["trace_id"]), (&"r-7".into(), &TRACE.into()));
}

#[tokio::test]
async fn missing_request_ids_are_generated() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    let malformed = "x".repeat(200);
    for request in
        [Request::get("/orders"), Request::get("/orders").header("x-request-id", malformed)]
    {
        let answer = ask(&gateway, request).await;
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(id.len(), 36);
        let seen = instance.last();
        assert_eq!(seen.header("x-request-id"), Some(id));
        let line = gateway.line_of(id).await;
        assert_eq!(line["trace_id"], seen.header("traceparent").unwrap()[3..35]);
    }
}

#[tokio::test]
async fn instance_does_not_replace_the_request_id() {
    let gateway = Gateway::new("").await;
    let _instance = gateway
        .instance("orders", "a", async |_| {
            let answer = http::Response::builder().header("x-request-id", "its own");
            Ok(answer.body(Body::empty()).unwrap())
        })
        .await;
    let answer = ask(&gateway, Request::get("/orders").header("x-request-id", "r-7")).await;
    let ids: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
    assert_eq!(ids, ["r-7"]);
}

fn keys(line: &Value) -> BTreeSet<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn each_request_has_one_access_log_line() {
    let gateway = Gateway::new(
        "[[routes]]
        name = 'reads'
        path = '/v1'
        service = 'orders'",
    )
    .await;
    let _instance = orders(&gateway).await;
    assert_eq!(gateway.post("/v1/7?secret=1", "four").await.status, 200);
    gateway.get("/nobody").await;
    let lines = gateway.told(2).await;
    let all = [
        "time",
        "request_id",
        "trace_id",
        "client",
        "method",
        "path",
        "protocol",
        "route",
        "service",
        "instance",
        "status",
        "attempts",
        "upstream_ms",
        "total_ms",
        "bytes",
        "complete",
    ];
    assert_eq!(keys(&lines[0]), BTreeSet::from(all));
    assert_eq!(keys(&lines[1]), all.into_iter().chain(["problem"]).collect());
    for (key, value) in [
        ("client", Value::from("127.0.0.1")),
        ("method", "POST".into()),
        ("path", "/v1/7".into()),
        ("protocol", "HTTP/1.1".into()),
        ("route", "reads".into()),
        ("service", "orders".into()),
        ("instance", "a".into()),
        ("status", 200.into()),
        ("attempts", 1.into()),
        ("bytes", 4.into()),
        ("complete", true.into()),
    ] {
        assert_eq!(lines[0][key], value, "{key}");
    }
    let (upstream, total) = (&lines[0]["upstream_ms"], &lines[0]["total_ms"]);
    assert!(0.0 < upstream.as_f64().unwrap() && upstream.as_f64() <= total.as_f64());
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    assert!(lines[1]["upstream_ms"].is_null() && lines[1]["instance"].is_null());
}

#[tokio::test]
async fn broken_response_is_logged_as_incomplete() {
    let gateway = Gateway::new("").await;
    let _instance = orders(&gateway).await;
    let (feed, body) = fed();
    feed.send(hyper::body::Frame::data("begin".into())).await.unwrap();
    let request = Request::post("/orders").body(body).unwrap();
    let mut answer = gateway.http1().send(request).await.into_body();
    assert_eq!(crate::support::next_data(&mut answer).await.unwrap(), "begin");
    drop((feed, answer));
    let line = gateway.told(1).await.remove(0);
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &5.into()));
}

#[tokio::test]
async fn cancelled_request_is_logged() {
    let gateway = Gateway::new("").await;
    let instance = gateway.instance("orders", "a", act::hang).await;
    for caller in [gateway.http1(), gateway.http2()] {
        let before = instance.seen().len();
        let request = Request::get("/orders").body(Body::empty()).unwrap();
        let calling = tokio::spawn(async move { caller.try_send(request).await.is_ok() });
        instance.until_asked(before + 1).await;
        calling.abort();
        assert!(soon(calling).await.is_err());
        let line = gateway.told(before + 1).await.pop().unwrap();
        assert_eq!((&line["status"], &line["complete"]), (&499.into(), &false.into()));
        assert_eq!(line["path"], "/orders");
    }
}
