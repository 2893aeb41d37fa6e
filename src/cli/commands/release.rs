//! `waypost release`: ends mass-expiry protection of a namespace whose held instances are gone.

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

/// End mass-expiry protection of a namespace and evict the instances it holds.
///
/// `waypost status` shows how many it holds, and why.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArguments {
    /// Namespace.
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
    let mut remote = RemoteRegistry::new(registry.access()?);
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
            print(&format_args!("{namespace}: evicted {evicted} held instances\n"))
        }
    }
}
