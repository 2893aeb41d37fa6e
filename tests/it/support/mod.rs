//! What every topic needs: a server, clients without any comfort, a watch that is folded and
//! checked on the way.

mod follower;
pub(crate) mod process;
pub(crate) mod raw;
mod server;

use std::time::Duration;

pub(crate) use follower::{Follower, Identity, identity};
use proto::{
    Cursor, Filter, Instance, RegisterRequest, RegisterResponse, ResolveRequest, ResolveResponse,
    WatchRequest, discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
pub(crate) use server::{TestServer, channel_to};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt;

/// The messages and client stubs of `waypost.v1`.
pub(crate) mod proto {
    #![allow(
        dead_code,
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::wildcard_imports,
        clippy::semicolon_if_nothing_returned,
        reason = "generated"
    )]
    include!("../../../client/src/generated/waypost.v1.rs");
}

/// For what takes no time: long enough for any machine, short enough for whoever waits.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The future's outcome; a test that waits longer than [`SOON`] fails and says what for.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// An instance that is taken as it is.
pub(crate) fn instance(service: &str, id: &str) -> Instance {
    Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        host: "10.0.0.1".to_owned(),
        port: 8080,
        ..Instance::default()
    }
}

/// The same with a zone and a version.
pub(crate) fn placed(service: &str, id: &str, zone: &str, version: &str) -> Instance {
    Instance { zone: zone.to_owned(), version: version.to_owned(), ..instance(service, id) }
}

pub(crate) fn millis(millis: u64) -> prost_types::Duration {
    Duration::from_millis(millis).try_into().expect("it fits")
}

pub(crate) fn register_request(instance: Instance) -> RegisterRequest {
    RegisterRequest { instance: Some(instance), ttl: None, disconnect_grace: None }
}

/// Registers with the longest TTL, so that no test depends on how fast it runs.
pub(crate) async fn register(
    registry: &mut RegistryClient<Channel>,
    instance: Instance,
) -> RegisterResponse {
    let request = RegisterRequest { ttl: Some(millis(300_000)), ..register_request(instance) };
    registry.register(request).await.expect("the registration is taken").into_inner()
}

/// Every instance of a service of the default namespace.
pub(crate) async fn resolve_all(
    discovery: &mut DiscoveryClient<Channel>,
    service: &str,
) -> ResolveResponse {
    resolve_all_in(discovery, "", service).await
}

/// Every instance of a service.
pub(crate) async fn resolve_all_in(
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
    discovery.resolve(request).await.expect("resolved").into_inner()
}

/// A watch of services of the default namespace; none: of all.
pub(crate) fn watch_of(services: &[&str]) -> WatchRequest {
    WatchRequest {
        services: services.iter().map(|&service| service.to_owned()).collect(),
        ..WatchRequest::default()
    }
}

pub(crate) fn zone_filter(zone: &str) -> Filter {
    Filter { zones: vec![zone.to_owned()], ..Filter::default() }
}

pub(crate) fn revision(cursor: Option<&Cursor>) -> u64 {
    cursor.expect("an answer has a cursor").revision
}

pub(crate) fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| instance.id.as_str()).collect()
}

/// The paths that `BadRequest` names.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    violations.unwrap_or_default().into_iter().map(|violation| violation.field).collect()
}

/// Where the randomness of a test begins: printed, and taken from `WAYPOST_TEST_SEED` to replay.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("WAYPOST_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    eprintln!("WAYPOST_TEST_SEED={seed}");
    seed
}
