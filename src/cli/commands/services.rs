//! `waypost services`: lists the services of a namespace.

use clap::Args;
use serde::Serialize;
use waypost_client::proto::{ListServicesRequest, ServiceSummary};

use crate::cli::{
    arguments::{NamespaceArgument, RegistryArguments},
    error::CommandError,
    output::{OutputFormat, Table, print, print_json},
    remote::{RemoteRegistry, discovery},
};

/// The largest page that a registry returns.
const PAGE: u32 = 1000;

/// List the services of a namespace.
#[derive(Debug, Args)]
pub(crate) struct ServicesArguments {
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    namespace: NamespaceArgument,
}

#[derive(Debug, Serialize)]
struct ServiceJson<'a> {
    namespace: &'a str,
    name: &'a str,
    instances: u32,
    up: u32,
}

pub(crate) async fn run(arguments: ServicesArguments) -> Result<(), CommandError> {
    let mut remote = RemoteRegistry::new(arguments.registry.access()?);
    let services = list(&mut remote, arguments.namespace.namespace).await?;
    match arguments.registry.output {
        OutputFormat::Json => print_json(&services.iter().map(record).collect::<Vec<_>>()),
        OutputFormat::Table => print(&table(&services)),
    }
}

/// Lists the services of all pages.
async fn list(
    remote: &mut RemoteRegistry,
    namespace: String,
) -> Result<Vec<ServiceSummary>, CommandError> {
    let mut services: Vec<ServiceSummary> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            ListServicesRequest { namespace: namespace.clone(), page_size: PAGE, page_token };
        let page = remote
            .call(async |channel| discovery(channel).list_services(request.clone()).await)
            .await?;
        // Ascending names bound the loop.
        let last = services.last().map(|service| service.name.as_str()).unwrap_or_default();
        if page.services.first().is_some_and(|first| first.name.as_str() <= last) {
            return Err(CommandError::InvalidResponse("pages of services are out of order"));
        }
        let ended = page.next_page_token.is_empty() || page.services.is_empty();
        services.extend(page.services);
        if ended {
            return Ok(services);
        }
        page_token = page.next_page_token;
    }
}

fn record(service: &ServiceSummary) -> ServiceJson<'_> {
    let ServiceSummary { namespace, name, instances, up } = service;
    ServiceJson { namespace, name, instances: *instances, up: *up }
}

fn table(services: &[ServiceSummary]) -> Table<3> {
    let mut table = Table::new(["SERVICE", "INSTANCES", "UP"]);
    for ServiceSummary { name, instances, up, .. } in services {
        table.push([name.into(), instances.to_string().into(), up.to_string().into()]);
    }
    table
}
