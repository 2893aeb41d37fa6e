//! `waypost instances`: lists the instances of a service.
//!
//! Invariant: a table never shows values of metadata; they may be secrets.

use clap::Args;
use prost_types::Timestamp;
use waypost_client::{Instance, proto::ResolveRequest};

use crate::cli::{
    arguments::{FilterArguments, NamespaceArgument, RegistryArguments},
    error::CommandError,
    output::{
        InstanceJson, OutputFormat, Table, TableCell, address, print, print_json, status_name,
        status_style,
    },
    remote::{RemoteRegistry, discovery},
};

/// The page size of a request; the registry returns smaller pages of large instances.
const PAGE_SIZE: u32 = 1_000;

/// List the instances of a service, in every status.
///
/// The table shows only the keys of metadata; JSON shows the values too.
#[derive(Debug, Args)]
pub(crate) struct InstancesArguments {
    /// Service.
    service: String,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    namespace: NamespaceArgument,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) async fn run(arguments: InstancesArguments) -> Result<(), CommandError> {
    let mut remote = RemoteRegistry::new(arguments.registry.access()?);
    let request = ResolveRequest {
        namespace: arguments.namespace.namespace,
        service: arguments.service,
        filter: Some(arguments.filter.into()),
        all_statuses: true,
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let instances = all_pages(&mut remote, request).await?;
    match arguments.registry.output {
        OutputFormat::Json => {
            print_json(&instances.iter().map(InstanceJson::from).collect::<Vec<_>>())
        }
        OutputFormat::Table => print(&table(&instances)),
    }
}

/// Lists the instances of all pages. A registry without paging returns one.
async fn all_pages(
    remote: &mut RemoteRegistry,
    mut request: ResolveRequest,
) -> Result<Vec<Instance>, CommandError> {
    let mut instances: Vec<Instance> = Vec::new();
    loop {
        let page =
            remote.call(async |channel| discovery(channel).resolve(request.clone()).await).await?;
        // Ascending ids bound the loop.
        let last = instances.last().map(|instance| instance.id.as_str()).unwrap_or_default();
        if page.instances.first().is_some_and(|first| first.id.as_str() <= last) {
            return Err(CommandError::InvalidResponse("pages of instances are out of order"));
        }
        let ended = page.next_page_token.is_empty() || page.instances.is_empty();
        instances.extend(page.instances);
        if ended {
            return Ok(instances);
        }
        request.page_token = page.next_page_token;
    }
}

fn table(instances: &[Instance]) -> Table<8> {
    let mut table = Table::new([
        "ID",
        "ADDRESS",
        "STATUS",
        "WEIGHT",
        "ZONE",
        "VERSION",
        "REGISTERED",
        "METADATA",
    ]);
    for instance in instances {
        let keys: Vec<&str> = instance.metadata.keys().map(String::as_str).collect();
        let registered = instance.registered_at.as_ref().map(Timestamp::to_string);
        table.push([
            (&instance.id).into(),
            address(instance).into(),
            TableCell::styled(status_name(instance.status), status_style(instance.status)),
            instance.weight.map(|weight| weight.to_string()).unwrap_or_default().into(),
            (&instance.zone).into(),
            (&instance.version).into(),
            registered.unwrap_or_default().into(),
            keys.join(",").into(),
        ]);
    }
    table
}
