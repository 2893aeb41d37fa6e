//! Pages of other origins.

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;

use crate::support::{Acted, Answer, Gateway, orders};

const CONFIG: &str = "
    [cors]
    origins = ['https://app.example']
    methods = ['PUT']
    headers = ['x-own']
    exposed = ['x-request-id']
    max_age = '10m'";

async fn ask(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn preflight_needs_no_instance() {
    let gateway = Gateway::new(CONFIG).await;
    let instance = orders(&gateway).await;
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-own"),
    ];
    let answer = ask(&gateway, "OPTIONS", "/orders", &asked).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-own"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert!(instance.seen().is_empty());
    assert_eq!(gateway.told(1).await[0]["status"], 200);
}

#[tokio::test]
async fn responses_and_problems_have_cors_headers() {
    let gateway = Gateway::new(CONFIG).await;
    let _instance = orders(&gateway).await;
    for (path, status) in [("/orders", 200), ("/nobody", 404)] {
        for (origin, allowed) in
            [("https://app.example", Some("https://app.example")), ("https://evil.example", None)]
        {
            let answer = ask(&gateway, "GET", path, &[("origin", origin)]).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("access-control-allow-origin"), allowed);
            assert!(answer.header("vary").unwrap().contains("origin"));
            assert_eq!(answer.header("access-control-expose-headers"), Some("x-request-id"));
        }
    }
}

#[tokio::test]
async fn other_options_requests_reach_the_instance() {
    let gateway = Gateway::new(CONFIG).await;
    let instance = orders(&gateway).await;
    for headers in [&[][..], &[("origin", "https://app.example")]] {
        assert_eq!(ask(&gateway, "OPTIONS", "/orders/7", headers).await.status, 200);
        assert_eq!(instance.last().path, "/7");
    }
    assert_eq!(instance.seen().len(), 2);
}

#[tokio::test]
async fn no_cors_headers_without_configuration() {
    let gateway = Gateway::new("").await;
    let _instance = orders(&gateway).await;
    let answer = ask(&gateway, "GET", "/orders", &[("origin", "https://app.example")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

/// The fields of CORS, and of its extensions.
const FIELDS: [&str; 7] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-allow-private-network",
];

/// An instance with CORS of its own, which allows everything.
async fn lax(_: Request<Incoming>) -> Acted {
    let mut answer = Response::new(Body::empty());
    for name in FIELDS {
        answer.headers_mut().append(name, "true".parse().unwrap());
        answer.headers_mut().append(name, "*".parse().unwrap());
    }
    answer.headers_mut().append("vary", "accept-language".parse().unwrap());
    Ok(answer)
}

/// All values of the CORS fields in a response.
fn shared(answer: &Answer) -> Vec<String> {
    let fields = answer.headers.iter();
    let mut shared: Vec<_> = fields
        .filter(|(name, _)| name.as_str().starts_with("access-control-"))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    shared.sort();
    shared
}

#[tokio::test]
async fn configured_cors_replaces_that_of_instances() {
    let exposed = "access-control-expose-headers: x-request-id";
    let allowed = "access-control-allow-origin: https://app.example";
    for compression in ["", "compression = true"] {
        let gateway = Gateway::new(&format!("{compression}{CONFIG}")).await;
        let _instance = gateway.instance("orders", "a", lax).await;
        for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
            for (fields, expected) in [
                (&[("origin", "https://app.example")][..], &[allowed, exposed][..]),
                (&[("origin", "https://evil.example")], &[exposed]),
                (&[("origin", "null")], &[exposed]),
                (&[], &[exposed]),
                (&[("access-control-request-method", "PUT")], &[exposed]),
            ] {
                let answer = ask(&gateway, method, "/orders", fields).await;
                assert_eq!(answer.status, 200);
                assert_eq!(shared(&answer), expected, "{method} {fields:?}");
                let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
                assert!(vary.iter().any(|value| *value == "accept-language"), "{vary:?}");
                let origin =
                    |value: &&http::HeaderValue| value.to_str().unwrap().contains("origin");
                assert!(vary.iter().any(origin), "{vary:?}");
            }
        }
    }
}

#[tokio::test]
async fn cors_of_an_instance_passes_without_configuration() {
    let gateway = Gateway::new("").await;
    let _instance = gateway.instance("orders", "a", lax).await;
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
    for (method, fields) in [("GET", &preflight[..1]), ("OPTIONS", &preflight), ("GET", &[])] {
        let answer = ask(&gateway, method, "/orders", fields).await;
        assert_eq!(shared(&answer).len(), 2 * FIELDS.len(), "{method} {fields:?}");
    }
}
