//! Rate limits: one for each client.

use http::Request;
use tonic::body::Body;

use crate::support::{Gateway, Setup, orders, until};

const CONFIG: &str = "
    implicit = true
    [[routes]]
    path = '/v1'
    service = 'orders'
    rate = { per_second = 1, burst = 2 }";

async fn ask(gateway: &Gateway, client: &str, path: &str) -> u16 {
    let request = Request::get(path).header("x-forwarded-for", client);
    gateway.send(request.body(Body::empty()).unwrap()).await.status.as_u16()
}

#[tokio::test]
async fn each_client_has_its_own_rate() {
    let trusted = ["127.0.0.0/8"];
    let setup = Setup { config: CONFIG, trusted: &trusted, ..Setup::default() };
    let gateway = Gateway::set_up(setup).await;
    let _instance = orders(&gateway).await;
    assert_eq!(ask(&gateway, "192.0.2.1", "/v1").await, 200);
    until(async || ask(&gateway, "192.0.2.1", "/v1").await == 429).await;
    assert_eq!(ask(&gateway, "192.0.2.2", "/v1").await, 200);
    assert_eq!(ask(&gateway, "192.0.2.1", "/orders").await, 200, "other ways are free");
}

#[tokio::test]
async fn untrusted_client_address_is_ignored() {
    let gateway = Gateway::new(CONFIG).await;
    let _instance = orders(&gateway).await;
    let mut client = 1..=254;
    until(async || {
        let client = format!("192.0.2.{}", client.next().unwrap());
        ask(&gateway, &client, "/v1").await == 429
    })
    .await;
}
