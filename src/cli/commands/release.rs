//! `waypost release`: an operator has seen that held instances are gone.

use clap::Args;
use serde::Serialize;
use waypost_client::proto::{ReleaseProtectionRequest, ReleaseProtectionResponse};

use crate::cli::{
    arguments::RegistryArguments,
    escape::shown,
    failure::Failure,
    output::{CursorRecord, Output, print, print_json},
    remote::{Remote, admin},
};

/// Remove the instances of a namespace that mass-expiry protection holds (`waypost status` shows
/// them), at once.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArguments {
    /// The namespace.
    namespace: String,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Debug, Serialize)]
struct ReleasedRecord {
    evicted: u64,
    cursor: Option<CursorRecord>,
}

pub(crate) async fn run(arguments: ReleaseArguments) -> Result<(), Failure> {
    let ReleaseArguments { namespace, registry } = arguments;
    let mut remote = Remote::new(registry.url);
    let request = ReleaseProtectionRequest { namespace: namespace.clone() };
    let ReleaseProtectionResponse { evicted, cursor } = remote
        .ask(async |channel| admin(channel).release_protection(request.clone()).await)
        .await?;
    match registry.output {
        Output::Json => {
            print_json(&ReleasedRecord { evicted, cursor: cursor.map(CursorRecord::from) })
        }
        Output::Table => {
            let namespace = shown(&namespace);
            print(&format_args!("{namespace}: {evicted} held instances are removed\n"))
        }
    }
}
