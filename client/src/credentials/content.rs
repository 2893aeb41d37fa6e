//! The content of files that are replaced while a client runs, compared as a whole: times and
//! inodes do not show every replacement of a file, or of a symbolic link on its path.

use std::{fs, io, io::Read as _, path::Path, time::Duration};

use crate::runtime::{clock, tasks};

/// The time between two reads of a file.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The time for which content must stay the same before it is judged.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Reads a file of up to `bytes_max` bytes. Blocks.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let reason = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// Reads content that may still be being written, until it stays the same. Returns `None` if it is
/// `last`. `read` blocks. Cancel safe.
pub(super) async fn read_settled<C>(
    read: impl Fn() -> C + Clone + Send + 'static,
    last: &C,
) -> Option<C>
where
    C: PartialEq + Send + 'static,
{
    let mut found = tasks::run_blocking(read.clone()).await?;
    while found != *last {
        clock::sleep(SETTLE_TIME).await;
        let again = tasks::run_blocking(read.clone()).await?;
        if again == found {
            return Some(again);
        }
        found = again;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A file whose content is another at each read, from the last one back.
    fn reads(contents: &[&'static str]) -> impl Fn() -> &'static str + Clone + Send + 'static {
        let contents: Vec<_> = contents.iter().rev().copied().collect();
        let contents = Arc::new(Mutex::new(contents));
        move || contents.lock().unwrap().pop().expect("a further read")
    }

    #[tokio::test(start_paused = true)]
    async fn content_is_judged_once_it_stays_the_same() {
        assert_eq!(read_settled(reads(&["old"]), &"old").await, None);
        let began = clock::now();
        assert_eq!(read_settled(reads(&["n", "ne", "new", "new"]), &"old").await, Some("new"));
        assert_eq!(clock::now() - began, 3 * SETTLE_TIME);
        assert_eq!(read_settled(reads(&["n", "old"]), &"old").await, None);
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12345").unwrap();
        assert_eq!(read_file(file.path(), 5).unwrap(), b"12345");
        let error = read_file(file.path(), 4).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 4 bytes");
    }
}
