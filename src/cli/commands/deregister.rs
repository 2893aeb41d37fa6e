//! `waypost deregister`: removes an instance on behalf of an operator.

use clap::Args;
use serde::Serialize;
use waypost_client::proto::DeregisterRequest;

use crate::cli::{
    arguments::{InstanceArguments, NamespaceArgument, RegistryArguments},
    error::CommandError,
    escape::escape,
    output::{CursorJson, OutputFormat, print, print_json},
    remote::{RemoteRegistry, registry},
};

/// Remove an instance from the registry.
///
/// A program that maintains its registration notices and may register it again.
#[derive(Debug, Args)]
pub(crate) struct DeregisterArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    namespace: NamespaceArgument,
}

#[derive(Debug, Serialize)]
struct DeregisterJson {
    namespace: String,
    service: String,
    id: String,
    cursor: Option<CursorJson>,
}

pub(crate) async fn run(arguments: DeregisterArguments) -> Result<(), CommandError> {
    let InstanceArguments { service, id } = arguments.instance;
    let namespace = arguments.namespace.namespace;
    let request = DeregisterRequest {
        lease_id: 0,
        namespace: namespace.clone(),
        service: service.clone(),
        id: id.clone(),
    };
    let mut remote = RemoteRegistry::new(arguments.registry.access()?);
    let response =
        remote.call(async |channel| registry(channel).deregister(request.clone()).await).await?;
    let cursor = response.cursor;
    match arguments.registry.output {
        OutputFormat::Json => {
            let cursor = cursor.map(CursorJson::from);
            print_json(&DeregisterJson { namespace, service, id, cursor })
        }
        OutputFormat::Table => {
            let revision = cursor.unwrap_or_default().revision;
            let (service, id) = (escape(&service), escape(&id));
            print(&format_args!("deregistered {service}/{id}, revision {revision}\n"))
        }
    }
}
