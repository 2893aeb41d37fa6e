//! `drain`, `release`, `deregister`, `status`: what operators do.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;
use tonic::transport::Endpoint;
use waypost_client::{
    Instance,
    proto::{RegisterRequest, registry_client::RegistryClient},
};
use waypost_testing::wait::soon;

use super::{orders, support::Server};

#[tokio::test]
async fn an_instance_is_drained() {
    let server = Server::start().await;
    let _a = server.register(orders("a")).await;
    let _b = server.register(orders("b")).await;
    let table = server.run(&["drain", "orders", "a"]).await;
    assert_eq!((table.code, table.stdout.as_str()), (0, "orders/a is draining, revision 3\n"));
    let json = server.json(&["drain", "orders", "b"]).await;
    assert_eq!(json["instance"]["status"], "DRAINING");
    assert_eq!(json["cursor"]["revision"], 4);
    server.run(&["drain", "orders", "z"]).await.refused("z");
    server.run(&["drain", "orders", "a", "--namespace", "shop"]).await.refused("shop");
}

#[tokio::test]
async fn suspects_are_shown_and_released() {
    let server = Server::start().await;
    let channel = Endpoint::from_shared(server.url()).unwrap();
    let mut registry = RegistryClient::new(channel.connect().await.unwrap());
    for id in 0..12 {
        let instance = Instance {
            namespace: "shop".into(),
            service: "orders".into(),
            id: id.to_string(),
            host: "10.0.0.1".into(),
            port: 80,
            ..Instance::default()
        };
        let ttl = Some(Duration::from_secs(1).try_into().unwrap());
        let request = RegisterRequest { instance: Some(instance), ttl, disconnect_grace: None };
        registry.register(request).await.unwrap();
    }
    let status = soon("protection", async {
        loop {
            let status = server.json(&["status"]).await;
            if status["protection"][0]["held"] == 2 {
                break status;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let why = "10 of 12 leases expired or lost their stream within 1s";
    assert_eq!(status["protection"][0]["why"], why);
    let table = server.run(&["status"]).await.stdout;
    assert!(table.contains("shop: 2 instances held since "), "{table}");
    assert!(table.contains("`waypost release shop`"), "{table}");
    let instances = server.json(&["instances", "orders", "--namespace", "shop"]).await;
    assert_eq!(instances[0]["status"], "SUSPECT");
    let released = server.run(&["release", "shop"]).await;
    assert_eq!((released.code, released.stdout.as_str()), (0, "shop: evicted 2 held instances\n"));
    let none = server.json(&["release", "shop"]).await;
    assert_eq!((&none["evicted"], &none["cursor"]["revision"]), (&0.into(), &26.into()));
    assert_eq!(server.json(&["status"]).await["protection"], Value::Array(vec![]));
    server.run(&["release", "a b"]).await.refused("namespace");
}

#[tokio::test]
async fn an_instance_is_deregistered() {
    let server = Server::start().await;
    let registry = RegistryClient::new(Endpoint::from_shared(server.url()).unwrap().connect_lazy());
    for id in ["a", "b"] {
        // Without a command that would register it again.
        let instance = Instance {
            service: "orders".into(),
            id: id.into(),
            host: "h".into(),
            port: 1,
            ..Default::default()
        };
        let instance = Some(instance);
        let request = RegisterRequest { instance, ..Default::default() };
        soon("a registration", registry.clone().register(request)).await.unwrap();
    }
    let table = server.run(&["deregister", "orders", "a"]).await;
    assert_eq!((table.code, table.stdout.as_str()), (0, "deregistered orders/a, revision 3\n"));
    server.run(&["deregister", "orders", "a"]).await.refused("a");
    let json = server.json(&["deregister", "orders", "b"]).await;
    assert_eq!((&json["id"], &json["cursor"]["revision"]), (&"b".into(), &4.into()));
    assert_eq!(server.json(&["services"]).await, Value::Array(Vec::new()));
}

#[tokio::test]
async fn the_status_is_shown() {
    let server = Server::start().await;
    let _a = server.register(orders("a")).await;
    let table = server.run(&["status"]).await.stdout;
    for row in ["revision   1", "instances  1", "store      memory", "ago)"] {
        assert!(table.contains(row), "{row}: {table}");
    }
    let json = server.json(&["status"]).await;
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&json["instances"], &json["leases"]), (&1.into(), &1.into()));
    assert_eq!(json["protection"], Value::Array(Vec::new()));
    let history = json["history_id"].as_str().unwrap();
    assert!(!history.is_empty() && table.contains(history), "{table}");
}
