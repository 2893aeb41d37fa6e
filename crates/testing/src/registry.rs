//! Messages for a registry, and requests to it over a plain connection.

use std::{net::SocketAddr, time::Duration};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use waypost_client::proto::{
    Cursor, Filter, Instance, RegisterRequest, RegisterResponse, ResolveRequest, ResolveResponse,
    WatchRequest, discovery_client::DiscoveryClient, registry_client::RegistryClient,
};

use crate::wait::soon;

/// Namespace, service and id of an instance.
pub type Identity = (String, String, String);

/// Returns the identity of an instance.
pub fn identity(instance: &Instance) -> Identity {
    (instance.namespace.clone(), instance.service.clone(), instance.id.clone())
}

/// Opens a connection of its own to a server.
///
/// # Panics
/// If the server accepts no connection soon.
pub async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    let connected = soon("a connection", endpoint.tcp_nodelay(true).connect()).await;
    connected.expect("the server takes connections")
}

/// Returns a valid instance.
pub fn instance(service: &str, id: &str) -> Instance {
    Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        host: "10.0.0.1".to_owned(),
        port: 8080,
        ..Instance::default()
    }
}

/// Returns a valid instance with a zone and a version.
pub fn instance_in(service: &str, id: &str, zone: &str, version: &str) -> Instance {
    Instance { zone: zone.to_owned(), version: version.to_owned(), ..instance(service, id) }
}

/// Returns an instance with as many fields as most have, and a unique id.
pub fn numbered_instance(service: &str, number: u64) -> Instance {
    let entry = |key| (format!("key-{key}"), format!("value-{key}-{number}"));
    Instance {
        metadata: (0..4).map(entry).collect(),
        ..instance_in(service, &format!("0190c5c2-7c1f-7a5e-9b1d-{number:012}"), "zone-a", "1.2.3")
    }
}

/// Returns a duration of the protocol.
///
/// # Panics
/// If it is out of range.
pub fn millis(millis: u64) -> prost_types::Duration {
    Duration::from_millis(millis).try_into().expect("a duration in range")
}

/// Returns a request to register with the default terms.
pub fn register_request(instance: Instance) -> RegisterRequest {
    RegisterRequest { instance: Some(instance), ttl: None, disconnect_grace: None }
}

/// Registers an instance with the longest TTL, so that the speed of a test does not matter.
///
/// # Panics
/// If the registration fails.
pub async fn register(
    registry: &mut RegistryClient<Channel>,
    instance: Instance,
) -> RegisterResponse {
    let request = RegisterRequest { ttl: Some(millis(300_000)), ..register_request(instance) };
    registry.register(request).await.expect("a registration").into_inner()
}

/// Returns all instances of a service in the default namespace, whatever their status.
///
/// # Panics
/// If the request fails.
pub async fn resolve_all(
    discovery: &mut DiscoveryClient<Channel>,
    service: &str,
) -> ResolveResponse {
    resolve_all_in(discovery, "", service).await
}

/// Returns all instances of a service, whatever their status.
///
/// # Panics
/// If the request fails.
pub async fn resolve_all_in(
    discovery: &mut DiscoveryClient<Channel>,
    namespace: &str,
    service: &str,
) -> ResolveResponse {
    let request = ResolveRequest {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        all_statuses: true,
        ..ResolveRequest::default()
    };
    discovery.resolve(request).await.expect("a response").into_inner()
}

/// Returns a request to watch services of the default namespace; an empty list watches all.
pub fn watch_of(services: &[&str]) -> WatchRequest {
    WatchRequest {
        services: services.iter().map(|&service| service.to_owned()).collect(),
        ..WatchRequest::default()
    }
}

/// Returns a filter for a zone.
pub fn zone_filter(zone: &str) -> Filter {
    Filter { zones: vec![zone.to_owned()], ..Filter::default() }
}

/// Returns the revision of a cursor.
///
/// # Panics
/// If there is no cursor.
pub fn revision(cursor: Option<&Cursor>) -> u64 {
    cursor.expect("a response has a cursor").revision
}

/// Returns the ids of instances.
pub fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| instance.id.as_str()).collect()
}

/// Returns the paths of the fields that the `BadRequest` details of a status name.
pub fn bad_fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    violations.unwrap_or_default().into_iter().map(|violation| violation.field).collect()
}
