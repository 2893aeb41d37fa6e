//! Services that are larger than one response of the registry.

use std::collections::BTreeMap;

use tonic::transport::Endpoint;
use waypost_client::{
    Instance,
    proto::{RegisterRequest, registry_client::RegistryClient},
};

use super::support::{Server, finish, program};

/// Registers instances with `bytes` of metadata each.
async fn register_large(server: &Server, count: usize, bytes: usize) {
    let channel = Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
    let mut registry = RegistryClient::new(channel);
    let parts = (0..bytes.div_ceil(4_000)).map(|part| (format!("part-{part}"), "x".repeat(4_000)));
    let metadata: BTreeMap<_, _> = parts.collect();
    for number in 0..count {
        let instance = Instance {
            service: "large".into(),
            id: format!("{number:05}"),
            host: "10.0.0.1".into(),
            port: 80,
            metadata: metadata.clone(),
            ..Instance::default()
        };
        let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
        let request = RegisterRequest { instance: Some(instance), ttl, disconnect_grace: None };
        registry.register(request).await.unwrap();
    }
}

#[tokio::test]
async fn all_instances_of_a_service_over_4_mib_are_listed() {
    let server = Server::start().await;
    register_large(&server, 380, 12_000).await;
    let json = server.json(&["instances", "large"]).await;
    let ids: Vec<_> = json.as_array().unwrap().iter().map(|one| one["id"].as_str()).collect();
    let expected: Vec<_> = (0..380).map(|number| format!("{number:05}")).collect();
    assert_eq!(ids, expected.iter().map(|id| Some(id.as_str())).collect::<Vec<_>>());
    assert_eq!(json[379]["metadata"]["part-2"].as_str().map(str::len), Some(4_000));
    let table = server.run(&["instances", "large"]).await;
    assert_eq!((table.code, table.stdout.lines().count()), (0, 381));
}

#[tokio::test]
async fn all_instances_of_a_service_over_a_page_are_listed() {
    let server = Server::start().await;
    register_large(&server, 1_001, 0).await;
    let json = server.json(&["instances", "large"]).await;
    assert_eq!((json.as_array().unwrap().len(), &json[1_000]["id"]), (1_001, &"01000".into()));
    let none = server.json(&["instances", "large", "--zone", "nowhere"]).await;
    assert_eq!(none.as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn unreachable_address_is_a_usage_error() {
    for (address, word) in [
        ("0.0.0.0:80", "unspecified"),
        ("[::]:80", "unspecified"),
        ("[ff02::1]:80", "multicast"),
        ("255.255.255.255:80", "broadcast"),
        ("0x7f.0.0.1:80", "write 127.0.0.1"),
        ("0300.0250.1:80", "write 192.168.0.1"),
    ] {
        let arguments = ["register", "--service", "orders", "--address", address];
        let finished = finish(&mut program(arguments)).await;
        assert_eq!(finished.code, 2, "{address}: {}", finished.stderr);
        assert!(finished.stderr.contains(word), "{address}: {}", finished.stderr);
    }
}
