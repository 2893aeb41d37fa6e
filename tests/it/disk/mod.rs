//! The registry on a disk that is full, fails, or holds no store: refusals, their messages, and the
//! requests that are still served.

mod failing;
mod full;
mod outage;
mod starting;
mod tmpfs;
mod unusable;

use std::{path::Path, process::Output};

use tempfile::TempDir;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_types::StatusExt;
use waypost_client::proto::{
    GetStatusRequest, GetStatusResponse, admin_client::AdminClient,
    discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::{
    process::{RegistryProcess, Serve, output},
    registry::connect,
    wait::soon,
};

use crate::support::{serve, waypost};

/// The store's file in its directory.
const FILE: &str = "registry.redb";
/// The health of what only reads, and of what writes.
const READS: [&str; 2] = ["", "waypost.v1.Discovery"];
const WRITES: &str = "waypost.v1.Registry";

/// The stubs over one connection.
#[derive(Clone)]
struct Clients {
    registry: RegistryClient<Channel>,
    discovery: DiscoveryClient<Channel>,
    admin: AdminClient<Channel>,
    health: HealthClient<Channel>,
}

impl Clients {
    async fn of(server: &RegistryProcess) -> Self {
        Self::over(connect(server.address()).await)
    }

    fn over(channel: Channel) -> Self {
        Self {
            registry: RegistryClient::new(channel.clone()),
            discovery: DiscoveryClient::new(channel.clone()),
            admin: AdminClient::new(channel.clone()),
            health: HealthClient::new(channel),
        }
    }

    async fn status(&self) -> GetStatusResponse {
        let status = self.admin.clone().get_status(GetStatusRequest {}).await;
        status.expect("a status").into_inner()
    }

    /// Follows the health of a service, which is the given one at first.
    async fn watch_health(
        &self,
        service: &str,
        now: ServingStatus,
    ) -> Streaming<HealthCheckResponse> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let opened = soon("a watch", self.health.clone().watch(request)).await;
        let mut health = opened.expect("health is told").into_inner();
        assert_eq!(next_health(&mut health).await, now, "{service:?}");
        health
    }

    async fn is_serving(&self, service: &str) -> bool {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = soon("health", self.health.clone().check(request)).await;
        health.expect("health is told").get_ref().status() == ServingStatus::Serving
    }
}

async fn next_health(health: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let message = soon("a word on health", health.message()).await;
    message.expect("the stream goes on").expect("the stream has no end").status()
}

/// The arguments of a server on a directory.
fn on(data: &Path) -> Serve {
    serve().disk(data).log("info")
}

/// True where a refusal has the code and a retry delay.
fn is_refusal(status: &Status, code: Code) -> bool {
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    status.code() == code && retry.is_some_and(|delay| !delay.is_zero())
}

/// Runs a server that can't use a directory to its end. Returns the one line with the reason.
async fn expect_refused_start(data: &Path) -> String {
    let place = TempDir::new().expect("a directory");
    let mut command = waypost(place.path());
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(["--store", "disk", "--data-dir"])
        .arg(data);
    let Output { status, stderr, .. } = output(command).await;
    let said = String::from_utf8(stderr).expect("text");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(status.code(), Some(1), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("waypost: ")).collect();
    assert!(lines.len() == 1 && !said.contains("ERROR"), "one line says it: {said}");
    assert!(lines[0].contains(&*data.to_string_lossy()), "it names the path: {said}");
    lines[0].to_owned()
}
