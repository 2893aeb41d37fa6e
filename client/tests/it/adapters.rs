//! The ways into other crates' clients, over loopback and against the registry for tests.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{Router, extract::Request, routing::get};
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use tokio::{net::TcpListener, time::timeout};
use tower::{
    Layer, Service as _, ServiceExt, balance::p2c::Balance, discover::Change, load::Constant,
    service_fn,
};
use waypost_client::{
    HttpLayer, Instance, Registration, Service, Update, fake::Registry, proto::Status,
};

use crate::support::{gone, instance};

/// Longer than any wait of these tests where all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP server, as an instance, that responds with its id and the request's `Host`.
async fn served(id: &'static str) -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async move |request: Request| {
        format!("{id} as {}", request.headers()["host"].to_str().unwrap())
    };
    let app = Router::new().route("/who", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    instance(id, address.port())
}

#[tokio::test]
async fn balancer_follows_instances_in_traffic() {
    let registry = Registry::new();
    registry.join(Registration::new("orders", "10.0.0.1", 80).id("a"));
    let changes = registry.client().service("orders").discover();
    let services = changes.map_ok(|change| match change {
        Change::Insert(id, instance) => {
            let call = move |()| {
                std::future::ready(Ok::<_, tower::BoxError>(format!(
                    "{}:{}",
                    instance.id, instance.port
                )))
            };
            Change::Insert(id, Constant::new(service_fn(call), 1))
        }
        Change::Remove(id) => Change::Remove(id),
    });
    let mut balance = Balance::new(services);
    let mut until = async |wanted: &str| {
        let answered = async {
            while balance.ready().await.unwrap().call(()).await.unwrap() != wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, answered).await.unwrap();
    };
    until("a:80").await;
    registry.join(Registration::new("orders", "10.0.0.2", 80).id("b"));
    until("b:80").await;
    registry.update("orders", "b", &Update::new().status(Status::Draining));
    registry.join(Registration::new("orders", "10.0.0.1", 81).id("a"));
    until("a:81").await;
}

#[tokio::test]
async fn changes_of_a_fixed_service_end() {
    let mut changes = Service::fixed([instance("a", 80)]).discover();
    assert!(matches!(changes.next().await, Some(Ok(Change::Insert(..)))));
    assert!(changes.next().await.is_none());
    assert!(changes.next().await.is_none(), "balancers ask again");
}

#[tokio::test]
async fn each_http_request_picks_an_instance() {
    let (gone, _socket) = gone();
    let orders = Service::fixed([served("a").await, served("b").await, gone]);
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let mut client = HttpLayer::new(orders).layer(client);
    let (mut answers, mut failed) = (BTreeSet::new(), 0);
    for _ in 0..200 {
        let request = http::Request::get("http://orders/who").body(Empty::new()).unwrap();
        match client.ready().await.unwrap().call(request).await {
            Ok(answer) => {
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                answers.insert(String::from_utf8(body.into()).unwrap());
            }
            Err(_) => failed += 1,
        }
    }
    assert_eq!(answers, BTreeSet::from(["a as orders".into(), "b as orders".into()]));
    // The instance that accepts no connection is ejected.
    assert!(failed <= 10, "{failed}");
}

#[tokio::test]
async fn reqwest_resolves_a_service_and_skips_refused_connections() {
    let (gone, _socket) = gone();
    // A connection for each request.
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .no_proxy()
        .dns_resolver(Arc::new(Service::fixed([served("a").await, gone])))
        .build()
        .unwrap();
    let mut failed = 0;
    for _ in 0..40 {
        match client.get("http://Orders/who").send().await {
            Ok(answer) => assert_eq!(answer.text().await.unwrap(), "a as orders"),
            Err(_) => failed += 1,
        }
    }
    // All of its picks may have been the lost one; half of the first ones are.
    assert!(failed <= 8, "{failed}");
}

#[tokio::test]
async fn reqwest_resolves_other_names_with_dns() {
    let elsewhere = served("elsewhere").await;
    let resolver = Arc::new(Service::fixed([instance("a", 1)]));
    let client = reqwest::Client::builder().no_proxy().dns_resolver(resolver).build().unwrap();
    let answer = client.get(format!("http://localhost:{}/who", elsewhere.port)).send().await;
    assert!(answer.unwrap().text().await.unwrap().starts_with("elsewhere as localhost"));
}

#[tokio::test]
async fn reqwest_fails_at_once_without_instances() {
    let resolver = Arc::new(Service::fixed([Instance { status: 0, ..instance("a", 1) }]));
    let client = reqwest::Client::builder().no_proxy().dns_resolver(resolver).build().unwrap();
    let error = timeout(PATIENCE, client.get("http://orders/who").send()).await.unwrap();
    let mut error: &dyn std::error::Error = &error.unwrap_err();
    while let Some(source) = error.source() {
        error = source;
    }
    assert_eq!(error.to_string(), "none of the service's 1 instances takes traffic");
}
