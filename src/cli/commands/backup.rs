//! `waypost backup`: writes a backup of a running registry to a file.
//!
//! Invariant: the file is complete and verified, or unchanged.

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::select;
use waypost_client::proto::BackupRequest;

use crate::{
    cli::{
        arguments::RegistryArguments,
        error::CommandError,
        escape::escape,
        output::{OutputFormat, print, print_json},
        remote::{RemoteRegistry, admin},
        signals::SignalListener,
    },
    store::{Backup, BackupSummary},
};

/// Write a backup of a running registry to a file.
///
/// The backup contains every instance with its lease. The file is created or replaced only once the
/// backup is complete.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Backup file to write.
    file: PathBuf,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Debug, Serialize)]
struct BackupJson {
    revision: u64,
    instances: u64,
    bytes: u64,
}

pub(crate) async fn run(arguments: BackupArguments) -> Result<(), CommandError> {
    let BackupArguments { file, registry } = arguments;
    let mut signals = SignalListener::listen()?;
    let mut remote = RemoteRegistry::new(registry.access()?);
    let (contents, bytes) = select! {
        biased;
        _ = signals.next() => return Err(CommandError::Interrupted),
        result = back_up(&mut remote, &file) => result?,
    };
    let BackupSummary { revision, instances } = contents;
    match registry.output {
        OutputFormat::Json => print_json(&BackupJson { revision: revision.0, instances, bytes }),
        OutputFormat::Table => {
            let file = escape(&file.display().to_string());
            print(&format_args!(
                "backed up {instances} instances at revision {revision} to {file}, {bytes} bytes\n"
            ))
        }
    }
}

/// Writes to a temporary file beside `path`, verifies it, then renames it. On an error, or if the
/// future is dropped, the temporary file is removed.
async fn back_up(
    remote: &mut RemoteRegistry,
    path: &Path,
) -> Result<(BackupSummary, u64), CommandError> {
    let failure = |source| CommandError::File { file: escape(&path.display().to_string()), source };
    let mut partial = create_partial(path).map_err(failure)?;
    let mut stream =
        remote.call(async |channel| admin(channel).backup(BackupRequest {}).await).await?;
    while let Some(message) = remote.next_message(&mut stream).await? {
        partial.write_all(&message.chunk).map_err(failure)?;
    }
    partial.as_file().sync_all().map_err(failure)?;
    let bytes = partial.as_file().metadata().map_err(failure)?.len();
    partial.rewind().map_err(failure)?;
    let contents = Backup::verify(partial.as_file()).map_err(|source| {
        let file = format!("the backup received for {}", escape(&path.display().to_string()));
        CommandError::Backup { file, source }
    })?;
    partial.persist(path).map_err(|error| failure(error.error))?;
    // Makes the name durable as well.
    File::open(directory(path)).and_then(|it| it.sync_all()).map_err(failure)?;
    Ok((contents, bytes))
}

/// Creates a file beside `path` that is removed with the returned value. Only its owner can read
/// it: metadata may contain secrets.
fn create_partial(path: &Path) -> io::Result<NamedTempFile> {
    match fs::metadata(path) {
        // A rename would replace a device or a pipe.
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other("exists and is not a regular file"));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut suffix = name.to_owned();
    suffix.push(".partial");
    tempfile::Builder::new().prefix(".").suffix(&suffix).tempfile_in(directory(path))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
