//! `waypost health`: the health of the registry, as an exit code for probes.

use clap::Args;
use serde::Serialize;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::cli::{
    arguments::RegistryArguments,
    error::CommandError,
    output::{OutputFormat, print, print_json},
    remote::RemoteRegistry,
};

/// Check whether the registry serves: exit code 0, otherwise 1. For probes.
///
/// Asks `grpc.health.v1.Health` for the whole server. With several addresses, one that serves is
/// enough.
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Debug, Serialize)]
struct HealthJson {
    status: &'static str,
}

pub(crate) async fn run(arguments: HealthArguments) -> Result<(), CommandError> {
    let mut remote = RemoteRegistry::new(arguments.registry.access()?);
    let response = remote
        .call(async |channel| HealthClient::new(channel).check(HealthCheckRequest::default()).await)
        .await?;
    let status = response.status().as_str_name();
    match arguments.registry.output {
        OutputFormat::Json => print_json(&HealthJson { status })?,
        OutputFormat::Table => print(&format_args!("{status}\n"))?,
    }
    match response.status() {
        ServingStatus::Serving => Ok(()),
        _ => Err(CommandError::NotServing),
    }
}
