//! The content of a file, compared as a whole: times and inodes do not show every replacement of a
//! file, or of a symbolic link on its path.

use std::{fs, io, path::Path, time::Duration};

use tokio::io::AsyncReadExt;

/// The time for which content must stay the same before it is judged.
pub(super) const SETTLE_TIME: Duration = Duration::from_millis(100);
/// The same for content without a newline at its end, which may still be being written.
const OPEN_END_SETTLE_TIME: Duration = Duration::from_secs(1);
/// The greatest size of a file, in bytes.
const BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileContent {
    Bytes(Vec<u8>),
    /// The reason why the file cannot be read.
    Unreadable(String),
}

impl FileContent {
    pub(super) async fn read(path: &Path) -> Self {
        match read_async(path).await {
            Ok(bytes) => Self::Bytes(bytes),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }

    pub(super) fn settle_time(&self) -> Duration {
        match self {
            Self::Bytes(bytes) if !bytes.ends_with(b"\n") => OPEN_END_SETTLE_TIME,
            Self::Bytes(_) | Self::Unreadable(_) => SETTLE_TIME,
        }
    }

    /// Returns whether the content is a proper prefix of `whole`.
    pub(super) fn is_cut_off(&self, whole: &[u8]) -> bool {
        matches!(self, Self::Bytes(bytes) if bytes.len() < whole.len() && whole.starts_with(bytes))
    }
}

/// Reads a file. Blocks.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, BYTES_MAX + 1), &mut bytes)?;
    bounded(bytes)
}

async fn read_async(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    bounded(bytes)
}

fn bounded(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 4 MiB"));
    }
    Ok(bytes)
}
