//! `waypost backup`: an image of everything that is registered, in a file that is a whole one or not
//! there.

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
    store::{Contents, Image},
};

/// Write an image of everything that is registered to a file, while the registry works: each instance
/// with its lease. The file appears, or is replaced, once it is whole.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Where to write it.
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
    let mut remote = RemoteRegistry::new(registry.url);
    let (contents, bytes) = select! {
        biased;
        _ = signals.next() => return Err(CommandError::Interrupted),
        done = back_up(&mut remote, &file) => done?,
    };
    let Contents { revision, instances } = contents;
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

/// Writes beside the file, which is replaced at last. Where it fails, or the future is dropped, there
/// is nothing of it.
async fn back_up(
    remote: &mut RemoteRegistry,
    path: &Path,
) -> Result<(Contents, u64), CommandError> {
    let failure = |source| CommandError::File { file: escape(&path.display().to_string()), source };
    let mut partial = begin(path).map_err(failure)?;
    let mut pieces =
        remote.call(async |channel| admin(channel).backup(BackupRequest {}).await).await?;
    while let Some(piece) = remote.next_message(&mut pieces).await? {
        partial.write_all(&piece.chunk).map_err(failure)?;
    }
    partial.as_file().sync_all().map_err(failure)?;
    let bytes = partial.as_file().metadata().map_err(failure)?.len();
    partial.rewind().map_err(failure)?;
    let contents = Image::verify(partial.as_file()).map_err(|source| {
        let file = format!("what came for {}", escape(&path.display().to_string()));
        CommandError::Backup { file, source }
    })?;
    partial.persist(path).map_err(|error| failure(error.error))?;
    // The name is durable as well from here on.
    File::open(directory(path)).and_then(|it| it.sync_all()).map_err(failure)?;
    Ok((contents, bytes))
}

/// A file beside the other that is gone with this value, and that only its owner can read: metadata
/// may hold secrets.
fn begin(path: &Path) -> io::Result<NamedTempFile> {
    match fs::metadata(path) {
        // A device or a pipe would be replaced by the file.
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other("is there and no regular file"));
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
