//! Authentication, and the identity that instances receive.

use futures_util::stream;
use http::{HeaderMap, HeaderName, Request, Response, request::Builder};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tonic::body::Body;
use waypost_auth::testing::SigningKey;

use crate::support::{Answer, Gateway, Instance, Setup, act, frames, full, orders, whole};

const SECRET: &str = "a secret of more than thirty-two bytes";
/// In the year 2100.
const LATE: u64 = 4_102_444_800;

const CONFIG: &str = "
    [auth.jwt]
    keys = [{ alg = 'HS256', secret_file = 'secret' }]
    audience = 'shop'
    [auth.api_keys]
    file = 'api-keys.toml'
    [[routes]]
    path = '/open'
    service = 'orders'
    [[routes]]
    path = '/optional'
    service = 'orders'
    auth = 'optional'
    [[routes]]
    path = '/required'
    service = 'orders'
    auth = 'required'
    [[routes]]
    path = '/scoped'
    service = 'orders'
    scopes = ['orders:write']";

async fn guarded() -> (Gateway, Instance) {
    let digest = hex("ci-key");
    let api_keys = format!("[[keys]]\nid = 'ci'\nsha256 = '{digest}'\nscopes = ['orders:read']");
    let files = [("secret", SECRET), ("api-keys.toml", &api_keys)];
    let gateway =
        Gateway::set_up(Setup { config: CONFIG, files: &files, ..Setup::default() }).await;
    let instance = orders(&gateway).await;
    (gateway, instance)
}

fn token(claims: &Value) -> String {
    let key = SigningKey::secret(SECRET.as_bytes());
    format!("Bearer {}", key.token(&json!({ "alg": "HS256", "typ": "JWT" }), claims))
}

fn of_ann() -> String {
    token(&json!({ "sub": "ann", "aud": "shop", "exp": LATE, "scope": "orders:read orders:write" }))
}

fn expired() -> String {
    token(&json!({ "sub": "ann", "aud": "shop", "exp": 1_000_000_000 }))
}

async fn ask(gateway: &Gateway, request: Builder) -> Answer {
    gateway.send(request.body(Body::empty()).unwrap()).await
}

/// The identity fields in an instance's request.
fn told(instance: &Instance) -> [Option<String>; 3] {
    let seen = instance.last();
    ["x-waypost-subject", "x-waypost-scopes", "x-waypost-auth"]
        .map(|name| seen.header(name).map(str::to_owned))
}

fn is(subject: &str, scopes: &str, method: &str) -> [Option<String>; 3] {
    [subject, scopes, method].map(|text| Some(text.to_owned()))
}

#[tokio::test]
async fn instance_receives_the_identity_and_no_credential() {
    let (gateway, instance) = guarded().await;
    for path in ["/optional", "/required", "/scoped"] {
        let answer = ask(&gateway, Request::get(path).header("authorization", of_ann())).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(told(&instance), is("ann", "orders:read orders:write", "jwt"));
        assert_eq!(instance.last().header("authorization"), None);
    }
    for path in ["/optional", "/required"] {
        let answer = ask(&gateway, Request::get(path).header("x-api-key", "ci-key")).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(told(&instance), is("ci", "orders:read", "api-key"));
        assert_eq!(instance.last().header("x-api-key"), None);
    }
}

#[tokio::test]
async fn anonymous_caller_is_accepted_only_on_open_routes() {
    let (gateway, instance) = guarded().await;
    for (path, status) in [("/open", 200), ("/optional", 200), ("/required", 401), ("/scoped", 401)]
    {
        let before = instance.seen().len();
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        if status == 200 {
            assert_eq!(told(&instance), [None, None, None]);
            continue;
        }
        assert_eq!(instance.seen().len(), before);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        assert_eq!(answer.json()["service"], "orders");
    }
}

#[tokio::test]
async fn invalid_credential_is_accepted_only_without_auth() {
    let (gateway, instance) = guarded().await;
    let other = token(&json!({ "sub": "ann", "aud": "bank", "exp": LATE }));
    let unsigned = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.".to_owned();
    for token in [expired(), other, unsigned] {
        for (path, status) in [("/optional", 401), ("/required", 401), ("/open", 200)] {
            let request = Request::get(path).header("authorization", &token);
            assert_eq!(ask(&gateway, request).await.status, status, "{path} {token}");
        }
    }
    let request = Request::get("/required").header("x-api-key", "another-key");
    assert_eq!(ask(&gateway, request).await.status, 401);
    assert_eq!(instance.seen().len(), 3);
}

#[tokio::test]
async fn missing_scope_is_named() {
    let (gateway, instance) = guarded().await;
    let answer = ask(&gateway, Request::get("/scoped").header("x-api-key", "ci-key")).await;
    assert_eq!(answer.status, 403);
    assert!(answer.header("www-authenticate").unwrap().contains("scope=\"orders:write\""));
    assert_eq!(answer.json()["service"], "orders");
    assert!(instance.seen().is_empty());
}

#[tokio::test]
async fn identity_headers_of_callers_are_dropped() {
    let (gateway, instance) = guarded().await;
    let (plain, orders) = (Gateway::new("").await, Instance::serve(act::echo).await);
    plain.registry.join(orders.registration("orders", "a"));
    for (gateway, instance, path) in [
        (&gateway, &instance, "/open"),
        (&gateway, &instance, "/optional"),
        (&plain, &orders, "/orders"),
    ] {
        let request = Request::get(path).header("x-waypost-subject", "root");
        let request = request.header("x-waypost-scopes", "all").header("x-waypost-auth", "jwt");
        assert_eq!(ask(gateway, request).await.status, 200);
        assert_eq!(told(instance), [None, None, None]);
    }
}

#[tokio::test]
async fn identity_trailers_of_callers_are_dropped() {
    let gateway = Gateway::new("").await;
    let _instance = gateway
        .instance("orders", "a", async |request: Request<Incoming>| {
            let body = request.into_body().collect().await.unwrap();
            let names: Vec<_> = body.trailers().unwrap().keys().map(HeaderName::as_str).collect();
            Ok(Response::new(full(names.join(" "))))
        })
        .await;
    let forged = ["x-waypost-subject", "x_waypost_auth", "authorization", "x-forwarded-for"];
    for (caller, kind) in [
        (gateway.http1(), "text/plain"),
        (gateway.http2(), "text/plain"),
        (gateway.http2(), "application/grpc"),
    ] {
        let mut trailers = HeaderMap::new();
        for name in forged.into_iter().chain(["x-sum"]) {
            trailers.insert(name, "root".parse().unwrap());
        }
        let body = [Frame::data("body".into()), Frame::trailers(trailers)];
        let request =
            Request::post("/orders").header("content-type", kind).header("host", "orders");
        let request = request.header("trailer", format!("{}, x-sum", forged.join(", ")));
        let request = request.body(frames(stream::iter(body))).unwrap();
        let answer = whole(caller.send(request).await).await;
        assert_eq!(answer.text(), "x-sum", "{caller:?} {kind}");
    }
}

fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A route for one host that requires a key; the implicit route has no rule.
const BY_HOST: &str = "
    [auth.api_keys]
    file = 'api-keys.toml'
    [[routes]]
    host = 'pay.example.com'
    path = '/v1'
    service = 'payments'
    auth = 'required'\n";

#[tokio::test]
async fn implicit_routes_are_closed_with_auth() {
    for (implicit, open) in [("", 404), ("implicit = false\n", 404), ("implicit = true\n", 200)] {
        let config = &format!("{implicit}{BY_HOST}");
        let digest = hex("ci-key");
        let api_keys = format!("[[keys]]\nid = 'ci'\nsha256 = '{digest}'\nscopes = []");
        let files = &[("api-keys.toml", &*api_keys)];
        let gateway = Gateway::set_up(Setup { config, files, ..Setup::default() }).await;
        let _payments = gateway.instance("payments", "a", act::echo).await;
        let _admin = gateway.instance("internal-admin", "a", act::echo).await;
        let ask = async |host: &str, path: &str| {
            let request = Request::get(path).header("host", host).body(Body::empty()).unwrap();
            gateway.send(request).await.status.as_u16()
        };
        assert_eq!(ask("pay.example.com", "/v1/1").await, 401, "{config}");
        // Around the route: by another host, by the names of services.
        assert_eq!(ask("other.example.com", "/v1/1").await, 404, "{config}");
        assert_eq!(ask("other.example.com", "/payments/1").await, open, "{config}");
        assert_eq!(ask("pay.example.com", "/internal-admin/1").await, open, "{config}");
    }
}
