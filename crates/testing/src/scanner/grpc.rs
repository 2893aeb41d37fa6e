//! Calls of methods that do not exist, with broken messages, and about names that nothing has.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use http::Request;
use prost::Message;
use tokio::time::{sleep, timeout};
use waypost_client::proto::{
    DeregisterRequest, HeartbeatRequest, ListServicesRequest, ResolveRequest, UpdateRequest,
    WatchRequest, discovery_client::DiscoveryClient,
};

use super::{RESPONSE_MAX, bytes, unknown_name};
use crate::{
    http2::{RawClient, framed, full},
    registry::{connect, instance, register_request},
    wait::soon,
};

const GRPC: &str = "application/grpc";
const CONTENT_TYPES: [&str; 4] = [GRPC, "application/grpc-web", "text/plain", ""];
const SERVICES: [&str; 6] = [
    "waypost.v1.Registry",
    "waypost.v1.Discovery",
    "waypost.v1.Admin",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "waypost.v1.Nothing",
];
const METHODS: [&str; 7] = [
    "Registry/Register",
    "Registry/Heartbeat",
    "Registry/Update",
    "Registry/KeepAlive",
    "Discovery/Resolve",
    "Discovery/ListServices",
    "Admin/GetStatus",
];
/// No response to an unknown method is larger.
const RESPONSE_BYTES_MAX: usize = 4_096;

/// Calls methods that do not exist, or sends headers that are too large.
pub(super) async fn unknown_methods(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let mut client = RawClient::connect(address).await;
    if rng.u8(..4) == 0 {
        return large_headers(address, &mut client, rng).await;
    }
    for _ in 0..rng.u8(1..20) {
        let path = match rng.u8(..3) {
            0 => format!("/{}/{}", SERVICES[rng.usize(..SERVICES.len())], unknown_name(rng)),
            1 => format!("/{}/{}", unknown_name(rng), unknown_name(rng)),
            _ => format!("/{}", unknown_name(rng)),
        };
        let content_type = CONTENT_TYPES[rng.usize(..CONTENT_TYPES.len())];
        let sent = client.send(&path, content_type, full(framed(b""))).await;
        let response = sent.map_err(io::Error::other)?;
        let size = response.body.len();
        assert!(size < RESPONSE_BYTES_MAX, "{path}: {size} bytes");
    }
    Ok(())
}

async fn large_headers(
    address: SocketAddr,
    client: &mut RawClient,
    rng: &mut Rng,
) -> io::Result<()> {
    let mut request = Request::post(format!("http://{address}/waypost.v1.Admin/GetStatus"));
    for number in 0..[1, 20, 200][rng.usize(..3)] {
        request = request.header(format!("x-{number}"), "y".repeat(1_000));
    }
    let request = request.body(full(framed(b""))).expect("a request");
    client.request(request).await.map(drop).map_err(io::Error::other)
}

/// Sends messages that are cut, longer than announced, or not messages at all.
pub(super) async fn broken_messages(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let mut client = RawClient::connect(address).await;
    for _ in 0..rng.u8(1..10) {
        let path = format!("/waypost.v1.{}", METHODS[rng.usize(..METHODS.len())]);
        let length = rng.usize(..2_000);
        let junk = bytes(rng, length);
        let valid = framed(&register_request(instance("", "")).encode_to_vec());
        let body = match rng.u8(..5) {
            // Announces 2 GiB.
            0 => Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]),
            1 => Bytes::from_static(&[1, 0, 0, 0, 1, 0]),
            2 => valid.slice(..rng.usize(..valid.len())),
            3 => framed(&junk),
            _ => Bytes::from(junk),
        };
        client.send(&path, GRPC, full(body)).await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Looks up, renews, changes and deregisters what does not exist.
pub(super) async fn unknown_names(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let mut client = RawClient::connect(address).await;
    for _ in 0..rng.u8(1..40) {
        let (method, message) = request_about_nothing(rng);
        let path = format!("/waypost.v1.{method}");
        let sent = client.send(&path, GRPC, full(framed(&message))).await;
        sent.map_err(io::Error::other)?;
    }
    for _ in 0..2 {
        let service = unknown_name(rng);
        // The `service` of a `HealthCheckRequest`.
        let length = u8::try_from(service.len()).expect("a short name");
        let message = [&[0x0a, length], service.as_bytes()].concat();
        for method in ["Check", "Watch"] {
            let path = format!("/grpc.health.v1.Health/{method}");
            let sent = client.send(&path, GRPC, full(framed(&message)));
            // A watch has no end.
            let _open = timeout(RESPONSE_MAX, sent).await;
        }
    }
    Ok(())
}

/// Returns a method and the message of a request for it.
fn request_about_nothing(rng: &mut Rng) -> (&'static str, Vec<u8>) {
    let (namespace, service, id) = (unknown_name(rng), unknown_name(rng), unknown_name(rng));
    match rng.u8(..6) {
        0 => {
            let request = ResolveRequest { namespace, service, ..ResolveRequest::default() };
            ("Discovery/Resolve", request.encode_to_vec())
        }
        1 => {
            let page_token = unknown_name(rng);
            let request =
                ResolveRequest { service, page_token, page_size: 5, ..ResolveRequest::default() };
            ("Discovery/Resolve", request.encode_to_vec())
        }
        2 => {
            let request = ListServicesRequest { namespace, ..ListServicesRequest::default() };
            ("Discovery/ListServices", request.encode_to_vec())
        }
        3 => {
            let lease_ids = vec![rng.u64(..); rng.usize(..100)];
            ("Registry/Heartbeat", HeartbeatRequest { lease_ids }.encode_to_vec())
        }
        4 => {
            let request = DeregisterRequest { namespace, service, id, lease_id: 0 };
            ("Registry/Deregister", request.encode_to_vec())
        }
        _ => {
            let request = UpdateRequest { lease_id: rng.u64(..), ..UpdateRequest::default() };
            ("Registry/Update", request.encode_to_vec())
        }
    }
}

/// Watches services that do not exist, and leaves the watches in the middle.
pub(super) async fn abandoned_watches(address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    let mut discovery = DiscoveryClient::new(connect(address).await);
    let mut open = Vec::new();
    for _ in 0..rng.u8(1..12) {
        let count = rng.usize(..60);
        let services = std::iter::repeat_with(|| unknown_name(rng)).take(count).collect();
        let namespace = if rng.bool() { unknown_name(rng) } else { String::new() };
        let request = WatchRequest { namespace, services, ..WatchRequest::default() };
        let watch = soon("a watch", discovery.watch(request)).await.expect("a watch");
        let mut watch = watch.into_inner();
        if rng.bool() {
            soon("a snapshot", watch.message()).await.expect("a snapshot");
        }
        if rng.bool() {
            open.push(watch);
        }
    }
    sleep(Duration::from_millis(rng.u64(..50))).await;
    Ok(())
}
