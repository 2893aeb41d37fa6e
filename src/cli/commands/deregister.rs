//! `waypost deregister`: an operator removes an instance.

use clap::Args;
use serde::Serialize;
use waypost_client::proto::DeregisterRequest;

use crate::cli::{
    arguments::{InstanceArguments, NamespaceArgument, RegistryArguments},
    escape::shown,
    failure::Failure,
    output::{CursorRecord, Output, print, print_json},
    remote::{Remote, registry},
};

/// Remove an instance from the registry. A program that keeps it registered will notice, and may
/// register it again.
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
struct DeregisteredRecord {
    namespace: String,
    service: String,
    id: String,
    cursor: Option<CursorRecord>,
}

pub(crate) async fn run(arguments: DeregisterArguments) -> Result<(), Failure> {
    let InstanceArguments { service, id } = arguments.instance;
    let namespace = arguments.namespace.namespace;
    let request = DeregisterRequest {
        lease_id: 0,
        namespace: namespace.clone(),
        service: service.clone(),
        id: id.clone(),
    };
    let mut remote = Remote::new(arguments.registry.url);
    let answer =
        remote.ask(async |channel| registry(channel).deregister(request.clone()).await).await?;
    let cursor = answer.cursor;
    match arguments.registry.output {
        Output::Json => {
            let cursor = cursor.map(CursorRecord::from);
            print_json(&DeregisteredRecord { namespace, service, id, cursor })
        }
        Output::Table => {
            let revision = cursor.unwrap_or_default().revision;
            let (service, id) = (shown(&service), shown(&id));
            print(&format_args!("deregistered {service}/{id}, revision {revision}\n"))
        }
    }
}
