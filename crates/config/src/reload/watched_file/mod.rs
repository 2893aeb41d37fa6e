//! A value that is read from a file, and read again when the file changes.
//! Invariant: content that is invalid, unreadable or cut off never replaces the value in force.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    Hangup,
    content::{self, FileContent},
};
use crate::{ConfigErrors, decode};

/// The time between two reads of the file.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A value that is read from a file: always of the last valid content that the file had.
///
/// ```
/// use waypost_config::{parse, reload::WatchedFile, value};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("limits.toml");
/// # std::fs::write(&path, "retries = 2\n")?;
/// let file = WatchedFile::open(path, |text, _previous| {
///     parse(text, |file| file.required("retries", |value| value::integer(value, 0..=10_u32)))
/// })?;
/// assert_eq!(*file.current(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WatchedFile<T> {
    /// `None`: the value never changes.
    source: Option<FileSource<T>>,
    current: ArcSwap<T>,
    /// Held while content is judged, so that two contents are judged one after the other.
    judged: Mutex<JudgedContent>,
}

struct FileSource<T> {
    path: PathBuf,
    parse: Box<Parse<T>>,
}

type Parse<T> = dyn Fn(&str, Option<&T>) -> Result<T, ConfigErrors> + Send + Sync;

#[derive(Debug)]
struct JudgedContent {
    /// The content that was judged last.
    last: FileContent,
    /// The content of the value in force.
    in_force: Vec<u8>,
}

/// The reason to judge content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    Poll,
    /// SIGHUP: the operator confirms that the file is complete.
    Signal,
}

/// The result of judging content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reload {
    Unchanged,
    Replaced,
    /// The value in force stays.
    Rejected,
}

/// The reason why there is no value to start with.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is invalid.
    #[error("invalid configuration {}, {} error(s):\n{errors}", .path.display(), .errors.0.len())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of its errors.
        errors: ConfigErrors,
    },
}

/// The reason why content does not replace the value in force.
#[derive(Debug)]
enum Rejection {
    Unreadable(String),
    Invalid(ConfigErrors),
    CutOff,
}

impl<T> WatchedFile<T> {
    /// Reads the file. Blocks.
    ///
    /// `parse` gets the text, and on each reload the value in force.
    ///
    /// # Errors
    /// The file cannot be read, has more than 4 MiB, is not UTF-8, or `parse` returned errors.
    pub fn open(
        path: impl Into<PathBuf>,
        parse: impl Fn(&str, Option<&T>) -> Result<T, ConfigErrors> + Send + Sync + 'static,
    ) -> Result<Self, LoadError> {
        let source = FileSource { path: path.into(), parse: Box::new(parse) };
        let bytes = match content::read(&source.path) {
            Ok(bytes) => bytes,
            Err(error) => return Err(LoadError::Read { path: source.path, source: error }),
        };
        match source.parse(&bytes, None) {
            Ok(value) => {
                let last = FileContent::Bytes(bytes.clone());
                Ok(Self::with(Some(source), value, JudgedContent { last, in_force: bytes }))
            }
            Err(errors) => Err(LoadError::Invalid { path: source.path, errors }),
        }
    }

    /// A value without a file, which never changes.
    pub fn fixed(value: T) -> Self {
        let last = FileContent::Bytes(Vec::new());
        Self::with(None, value, JudgedContent { last, in_force: Vec::new() })
    }

    fn with(source: Option<FileSource<T>>, value: T, judged: JudgedContent) -> Self {
        Self { source, current: ArcSwap::from_pointee(value), judged: Mutex::new(judged) }
    }

    /// Returns the value in force.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Follows the file until `shutdown`, and calls `on_reload` with each new value in force.
    /// Rejected content is logged once. Cancel safe.
    ///
    /// The file is read each second. Changed content is judged once it has stayed the same for
    /// 100 ms (1 s without a newline at its end), since an editor may be writing it in place. It is
    /// rejected if it is the beginning of the content in force, as that of a full disk is.
    ///
    /// SIGHUP judges the content at once, changed or not, since files that it names may have
    /// changed. The operator confirms by it that the file is complete.
    pub async fn follow(
        &self,
        mut hangup: Hangup,
        shutdown: CancellationToken,
        on_reload: impl Fn(&T),
    ) {
        let following = async {
            match &self.source {
                Some(source) => self.poll(source, POLL_INTERVAL, hangup, on_reload).await,
                None => loop {
                    hangup.received().await;
                    info!("SIGHUP ignored: there is no configuration file to read again");
                },
            }
        };
        shutdown.run_until_cancelled(following).await;
    }

    async fn poll(
        &self,
        source: &FileSource<T>,
        interval: Duration,
        mut hangup: Hangup,
        on_reload: impl Fn(&T),
    ) {
        loop {
            let poll = async {
                sleep(interval).await;
                self.judge_settled(source).await
            };
            let reload = select! {
                reload = poll => reload,
                () = hangup.received() => {
                    self.judge(source, FileContent::read(&source.path).await, Trigger::Signal)
                }
            };
            if reload == Reload::Replaced {
                on_reload(&self.current());
            }
        }
    }

    /// Judges content that may still be being written, once it stays the same.
    async fn judge_settled(&self, source: &FileSource<T>) -> Reload {
        let mut found = FileContent::read(&source.path).await;
        while self.lock().last != found {
            sleep(found.settle_time()).await;
            let again = FileContent::read(&source.path).await;
            if again == found {
                return self.judge(source, again, Trigger::Poll);
            }
            found = again;
        }
        Reload::Unchanged
    }

    /// Puts `content` in force, or logs why not: at each signal, else once for the same content.
    fn judge(&self, source: &FileSource<T>, content: FileContent, trigger: Trigger) -> Reload {
        let mut judged = self.lock();
        if judged.last == content && trigger == Trigger::Poll {
            return Reload::Unchanged;
        }
        let read = self.read(source, &content).and_then(|value| match trigger {
            Trigger::Poll if content.is_cut_off(&judged.in_force) => Err(Rejection::CutOff),
            _ => Ok(value),
        });
        judged.last = content;
        match read {
            Ok(value) => {
                if let FileContent::Bytes(bytes) = &judged.last {
                    judged.in_force = bytes.clone();
                }
                self.current.store(Arc::new(value));
                Reload::Replaced
            }
            Err(rejection) => {
                rejection.log(&source.path);
                Reload::Rejected
            }
        }
    }

    fn read(&self, source: &FileSource<T>, content: &FileContent) -> Result<T, Rejection> {
        match content {
            FileContent::Bytes(bytes) => {
                source.parse(bytes, Some(&self.current())).map_err(Rejection::Invalid)
            }
            FileContent::Unreadable(error) => Err(Rejection::Unreadable(error.clone())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, JudgedContent> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> FileSource<T> {
    fn parse(&self, bytes: &[u8], previous: Option<&T>) -> Result<T, ConfigErrors> {
        (self.parse)(decode(bytes)?, previous)
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchedFile<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.source.as_ref().map(|source| &source.path);
        let mut debug = formatter.debug_struct("WatchedFile");
        debug.field("path", &path).field("current", &self.current).finish_non_exhaustive()
    }
}

impl Rejection {
    fn log(&self, path: &Path) {
        let path = path.display();
        match self {
            Self::Unreadable(error) => {
                error!(%path, error, "cannot read configuration, keeping the previous one");
            }
            Self::Invalid(errors) => {
                let count = errors.0.len();
                error!(%path, count, %errors, "invalid configuration, keeping the previous one");
            }
            Self::CutOff => error!(
                %path,
                "configuration is cut off, keeping the previous one; \
                 to remove its last lines on purpose, send SIGHUP"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
