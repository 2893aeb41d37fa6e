//! `waypost release`: an operator has seen that held instances are gone.

use clap::Args;
use serde::Serialize;
use waypost_client::proto::{ReleaseProtectionRequest, ReleaseProtectionResponse};

use crate::cli::{
    arguments::RegistryArguments,
    error::CommandError,
    escape::escape,
    output::{CursorJson, OutputFormat, print, print_json},
    remote::{RemoteRegistry, admin},
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
struct ReleaseJson {
    evicted: u64,
    cursor: Option<CursorJson>,
}

pub(crate) async fn run(arguments: ReleaseArguments) -> Result<(), CommandError> {
    let ReleaseArguments { namespace, registry } = arguments;
    let mut remote = RemoteRegistry::new(registry.url);
    let request = ReleaseProtectionRequest { namespace: namespace.clone() };
    let ReleaseProtectionResponse { evicted, cursor } = remote
        .call(async |channel| admin(channel).release_protection(request.clone()).await)
        .await?;
    match registry.output {
        OutputFormat::Json => {
            print_json(&ReleaseJson { evicted, cursor: cursor.map(CursorJson::from) })
        }
        OutputFormat::Table => {
            let namespace = escape(&namespace);
            print(&format_args!("{namespace}: {evicted} held instances are removed\n"))
        }
    }
}
