//! `waypost restore`: creates a data directory from a backup. An incomplete backup creates none.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        arguments::StoreArguments,
        error::CommandError,
        escape::escape,
        output::{OutputFormat, print, print_json},
    },
    store::{BackupError, DiskStore, StoreSummary},
};

/// Create a data directory from a backup.
///
/// The registry that starts with it has every instance with its lease, in a new history. The
/// directory must be empty or absent.
#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Backup file, written by `waypost backup`.
    file: PathBuf,
    #[command(flatten)]
    store: StoreArguments,
}

#[derive(Debug, Serialize)]
struct RestoreJson {
    history_id: String,
    revision: u64,
    instances: usize,
}

pub(crate) fn run(arguments: &RestoreArguments) -> Result<(), CommandError> {
    let directory = &arguments.store.data_dir;
    let StoreSummary { history, revision, instances, .. } = restore(&arguments.file, directory)?;
    match arguments.store.output {
        OutputFormat::Json => print_json(&RestoreJson {
            history_id: history.to_string(),
            revision: revision.0,
            instances,
        }),
        OutputFormat::Table => {
            let directory = escape(&directory.display().to_string());
            print(&format_args!(
                "restored {instances} instances at revision {revision} to {directory}, history \
                 {history}\n"
            ))
        }
    }
}

fn restore(path: &Path, directory: &Path) -> Result<StoreSummary, CommandError> {
    let file = || escape(&path.display().to_string());
    let image = File::open(path).map_err(|source| CommandError::File { file: file(), source })?;
    DiskStore::restore(image, directory).map_err(|error| match error {
        // Names its own file.
        BackupError::Store(error) => error.into(),
        source => CommandError::Backup { file: file(), source },
    })
}
