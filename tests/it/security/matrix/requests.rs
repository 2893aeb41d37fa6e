//! The requests of the table, and what they act on.

use prost::Message;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_request::MessageRequest,
};
use waypost_client::proto::{
    DeregisterRequest, HeartbeatRequest, HeartbeatResponse, Instance, ListServicesRequest,
    RegisterRequest, ReleaseProtectionRequest, ResolveRequest, UpdateRequest, WatchRequest,
    registry_client::RegistryClient,
};
use waypost_testing::registry::{instance, millis};

use super::super::support::{Answer, Reading, TokenChannel};

/// A lease that never was.
const NO_LEASE: u64 = 0x7fff_ffff_0000_1234;

/// Returns an instance of a service, `NAMESPACE/SERVICE`, at a host.
fn instance_of(service: &str, id: &str, host: &str) -> Instance {
    let (namespace, service) = split(service);
    Instance { namespace, host: host.to_owned(), ..instance(&service, id) }
}

fn split(service: &str) -> (String, String) {
    let (namespace, service) = service.split_once('/').expect("NAMESPACE/SERVICE");
    (namespace.to_owned(), service.to_owned())
}

/// Registers an instance, so that a request has something to act on; returns its lease.
pub(super) async fn registered(
    registry: &mut RegistryClient<TokenChannel>,
    service: &str,
    id: &str,
) -> u64 {
    // The longest times, so that the speed of a test does not matter.
    let longest = Some(millis(300_000));
    let request = RegisterRequest {
        instance: Some(instance_of(service, id, "10.0.0.1")),
        ttl: longest,
        disconnect_grace: longest,
    };
    registry.register(request).await.expect("a registration").into_inner().lease_id
}

/// Returns the service whose instance a request of a method changes, if it does.
pub(super) fn changed(method: &str, request: &str) -> Option<&'static str> {
    let changes = ["Heartbeat", "KeepAlive", "Update", "Deregister"];
    changes.iter().find(|name| method.ends_with(*name))?;
    ["shop/orders", "bank/ledger"].into_iter().find(|service| request.contains(service))
}

/// Returns the message of a request.
pub(super) fn message(method: &str, request: &str, id: &str, lease: Option<u64>) -> Vec<u8> {
    let by_lease = request.starts_with("lease of ");
    let lease_id = if by_lease { lease.unwrap_or(NO_LEASE) } else { 0 };
    let named = || match by_lease {
        true => (String::new(), String::new(), String::new()),
        false => {
            let (namespace, service) = split(request);
            (namespace, service, id.to_owned())
        }
    };
    let (_, name) = method.rsplit_once('/').expect("SERVICE/METHOD");
    match name {
        "Register" => {
            let (service, host) = request.split_once(" at ").expect("a host");
            let host = if host == "the caller" { "127.0.0.1" } else { host };
            let instance = Some(instance_of(service, id, host));
            RegisterRequest { instance, ..RegisterRequest::default() }.encode_to_vec()
        }
        "Heartbeat" | "KeepAlive" => HeartbeatRequest { lease_ids: vec![lease_id] }.encode_to_vec(),
        "Update" => {
            let (namespace, service, id) = named();
            let instance = Some(Instance { weight: Some(7), ..Instance::default() });
            let update_mask = Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] });
            UpdateRequest { lease_id, namespace, service, id, instance, update_mask }
                .encode_to_vec()
        }
        "Deregister" => {
            let (namespace, service, id) = named();
            DeregisterRequest { lease_id, namespace, service, id }.encode_to_vec()
        }
        "Resolve" => {
            let (namespace, service) = split(request);
            ResolveRequest { namespace, service, ..ResolveRequest::default() }.encode_to_vec()
        }
        "ListServices" => {
            ListServicesRequest { namespace: request.to_owned(), ..ListServicesRequest::default() }
                .encode_to_vec()
        }
        "Watch" if method.starts_with("waypost") => watch(request).encode_to_vec(),
        "ReleaseProtection" => {
            ReleaseProtectionRequest { namespace: request.to_owned() }.encode_to_vec()
        }
        "ServerReflectionInfo" => ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        }
        .encode_to_vec(),
        "Check" => HealthCheckRequest::default().encode_to_vec(),
        _ => Vec::new(),
    }
}

fn watch(request: &str) -> WatchRequest {
    let (namespace, services) = request.split_once('/').unwrap_or((request, ""));
    let services = services.split(" and ").filter(|service| !service.is_empty());
    WatchRequest {
        namespace: namespace.to_owned(),
        services: services.map(str::to_owned).collect(),
        ..WatchRequest::default()
    }
}

/// Returns the part of a response that shows what a caller gets.
pub(super) fn reading(method: &str) -> Reading {
    if method.ends_with("/Watch") { Reading::FirstMessage } else { Reading::All }
}

/// Returns whether an answer has an unknown lease.
pub(super) fn has_unknown_lease(method: &str, answer: &Answer) -> bool {
    let is_renewal = method.ends_with("/Heartbeat") || method.ends_with("/KeepAlive");
    let message = answer.body.get(5..).filter(|_| is_renewal);
    let renewed = message.map(|message| HeartbeatResponse::decode(message).expect("a response"));
    renewed.is_some_and(|response| !response.unknown_lease_ids.is_empty())
}
