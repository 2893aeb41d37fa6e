//! `waypost drain`: an operator has an instance take nothing new.

use clap::Args;
use prost_types::FieldMask;
use serde::Serialize;
use waypost_client::{
    Instance,
    proto::{Status, UpdateRequest, UpdateResponse},
};

use crate::cli::{
    arguments::{InstanceArguments, NamespaceArgument, RegistryArguments},
    escape::shown,
    failure::Failure,
    output::{CursorRecord, InstanceRecord, Output, print, print_json},
    remote::{Remote, registry},
};

/// Have an instance finish what it has and take nothing new: its status becomes DRAINING.
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
struct DrainedRecord<'a> {
    instance: InstanceRecord<'a>,
    cursor: Option<CursorRecord>,
}

pub(crate) async fn run(arguments: DrainArguments) -> Result<(), Failure> {
    let InstanceArguments { service, id } = arguments.instance;
    let request = UpdateRequest {
        lease_id: 0,
        namespace: arguments.namespace.namespace,
        service,
        id,
        instance: Some(Instance { status: Status::Draining.into(), ..Instance::default() }),
        update_mask: Some(FieldMask { paths: vec!["status".to_owned()] }),
    };
    let mut remote = Remote::new(arguments.registry.url);
    let UpdateResponse { instance, cursor } =
        remote.ask(async |channel| registry(channel).update(request.clone()).await).await?;
    let instance = instance.ok_or(Failure::Nonsense("it holds no instance"))?;
    match arguments.registry.output {
        Output::Json => print_json(&DrainedRecord {
            instance: (&instance).into(),
            cursor: cursor.map(CursorRecord::from),
        }),
        Output::Table => {
            let (service, id) = (shown(&instance.service), shown(&instance.id));
            let revision = instance.modified_revision;
            print(&format_args!("{service}/{id} is draining, revision {revision}\n"))
        }
    }
}
