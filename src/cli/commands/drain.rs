//! `waypost drain`: stops new calls to an instance.

use clap::Args;
use prost_types::FieldMask;
use serde::Serialize;
use waypost_client::{
    Instance,
    proto::{Status, UpdateRequest, UpdateResponse},
};

use crate::cli::{
    arguments::{InstanceArguments, NamespaceArgument, RegistryArguments},
    error::CommandError,
    escape::escape,
    output::{CursorJson, InstanceJson, OutputFormat, print, print_json},
    remote::{RemoteRegistry, registry},
};

/// Stop new calls to an instance: set its status to DRAINING.
///
/// The instance stays registered and finishes the calls it has.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    namespace: NamespaceArgument,
}

#[derive(Debug, Serialize)]
struct DrainJson<'a> {
    instance: InstanceJson<'a>,
    cursor: Option<CursorJson>,
}

pub(crate) async fn run(arguments: DrainArguments) -> Result<(), CommandError> {
    let InstanceArguments { service, id } = arguments.instance;
    let request = UpdateRequest {
        lease_id: 0,
        namespace: arguments.namespace.namespace,
        service,
        id,
        instance: Some(Instance { status: Status::Draining.into(), ..Instance::default() }),
        update_mask: Some(FieldMask { paths: vec!["status".to_owned()] }),
    };
    let mut remote = RemoteRegistry::new(arguments.registry.access()?);
    let UpdateResponse { instance, cursor } =
        remote.call(async |channel| registry(channel).update(request.clone()).await).await?;
    let instance = instance.ok_or(CommandError::InvalidResponse("the instance is missing"))?;
    match arguments.registry.output {
        OutputFormat::Json => print_json(&DrainJson {
            instance: (&instance).into(),
            cursor: cursor.map(CursorJson::from),
        }),
        OutputFormat::Table => {
            let (service, id) = (escape(&instance.service), escape(&instance.id));
            let revision = instance.modified_revision;
            print(&format_args!("{service}/{id} is draining, revision {revision}\n"))
        }
    }
}
