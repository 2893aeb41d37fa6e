//! `waypost check`: verifies a data directory and summarizes its content. Never changes what is
//! registered.

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        arguments::StoreArguments,
        error::CommandError,
        output::{OutputFormat, Table, print, print_json},
    },
    store::{DiskStore, StoreSummary},
};

/// Verify a data directory while the server is stopped.
///
/// Reads all of it and prints a summary.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    store: StoreArguments,
}

#[derive(Debug, Serialize)]
struct CheckJson {
    history_id: String,
    revision: u64,
    instances: usize,
    changes: usize,
}

pub(crate) fn run(arguments: &CheckArguments) -> Result<(), CommandError> {
    let kept = DiskStore::check(&arguments.store.data_dir)?;
    match arguments.store.output {
        OutputFormat::Json => print_json(&CheckJson::from(&kept)),
        OutputFormat::Table => print(&table(&kept)),
    }
}

impl From<&StoreSummary> for CheckJson {
    fn from(kept: &StoreSummary) -> Self {
        Self {
            history_id: kept.history.to_string(),
            revision: kept.revision.0,
            instances: kept.instances,
            changes: kept.changes,
        }
    }
}

fn table(kept: &StoreSummary) -> Table<2> {
    let mut table = Table::without_header();
    table.push(["history".into(), kept.history.to_string().into()]);
    table.push(["revision".into(), kept.revision.0.to_string().into()]);
    table.push(["instances".into(), kept.instances.to_string().into()]);
    table.push(["changes".into(), kept.changes.to_string().into()]);
    table
}
