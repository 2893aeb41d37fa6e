//! `waypost instances`: the instances of one service. A table must never show metadata's values:
//! they may be secrets.

use clap::Args;
use prost_types::Timestamp;
use waypost_client::{Instance, proto::ResolveRequest};

use super::{
    arguments::{FilterArguments, NamespaceArgument, RegistryArguments},
    failure::Failure,
    output::{Output, print, print_json},
    record::InstanceRecord,
    remote::Remote,
    table::{Cell, Table},
    text::{address, status_name, status_style},
};

/// List the instances of a service, whatever their status.
///
/// The table shows the keys of metadata alone; JSON shows the values, too.
#[derive(Debug, Args)]
pub(super) struct InstancesArguments {
    /// The service.
    service: String,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    namespace: NamespaceArgument,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(super) async fn run(arguments: InstancesArguments) -> Result<(), Failure> {
    let remote = Remote::new(arguments.registry.url);
    let request = ResolveRequest {
        namespace: arguments.namespace.namespace,
        service: arguments.service,
        filter: Some(arguments.filter.into()),
        all_statuses: true,
    };
    let instances = remote.answer(remote.discovery().resolve(request)).await?.instances;
    match arguments.registry.output {
        Output::Json => print_json(&instances.iter().map(InstanceRecord::from).collect::<Vec<_>>()),
        Output::Table => print(&table(&instances)),
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
            Cell::styled(status_name(instance.status), status_style(instance.status)),
            instance.weight.map(|weight| weight.to_string()).unwrap_or_default().into(),
            (&instance.zone).into(),
            (&instance.version).into(),
            registered.unwrap_or_default().into(),
            keys.join(",").into(),
        ]);
    }
    table
}
