//! The directory that keeps the last view of each service for the next start of the process. Never
//! delays a watch for long: a disk may be slow, full, or gone.

use std::{
    fs::{self, File},
    future::Future,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Semaphore, watch};

use super::{
    file::{self, StoredView, ViewError, ViewKey},
    published::{PublishedView, ViewProgress},
};
use crate::{
    endpoint::Snapshot,
    registry::Outage,
    runtime::{backoff::Backoff, clock, tasks},
};

/// The longest that a watch waits for a stored view before it connects to the registry.
const READ_MAX: Duration = Duration::from_secs(2);
/// The largest file that is read. A view of 2,000,000 instances is smaller, unless their metadata
/// is large.
const FILE_MAX: u64 = 1 << 30;
/// The shortest time between two writes of a view.
const SPACING: Duration = Duration::from_secs(1);
/// The longest delay before a failed write is retried.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A directory of views, as one client uses it.
#[derive(Debug)]
pub(crate) struct ViewDir {
    path: PathBuf,
    /// For all services together, so that each outage of the disk is logged once.
    outage: Mutex<Outage>,
    /// Allows one write at a time, however many services there are: a disk that hangs blocks one
    /// thread.
    write_permit: Semaphore,
}

/// An error of reading a file.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    #[error("it has more than {FILE_MAX} bytes")]
    TooLarge,
    #[error(transparent)]
    InvalidView(#[from] ViewError),
}

impl ViewDir {
    /// Creates no directory yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, outage: Mutex::default(), write_permit: Semaphore::new(1) }
    }

    /// Reads the stored view. One that can't be used is logged and ignored. Cancel safe.
    pub(crate) async fn read(&self, key: &ViewKey) -> Option<StoredView> {
        let path = self.path.join(key.file_name());
        let reading = {
            let (path, key) = (path.clone(), key.clone());
            tasks::run_blocking(move || read(&path, &key))
        };
        let reason = match clock::within(READ_MAX, reading).await {
            Some(Some(Ok(stored))) => return Some(stored),
            Some(Some(Err(ReadError::Unreadable(error))))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                return None;
            }
            Some(Some(Err(error))) => error.to_string(),
            Some(None) => return None,
            None => format!("reading it took more than {READ_MAX:?}"),
        };
        let ViewKey { namespace, service } = key;
        let what = "the stored view can't be used, ignoring it";
        tracing::warn!(namespace, service, path = %path.display(), reason, "{what}");
        None
    }

    /// Writes the views of `key` that are published after this call, until there can't be another
    /// one. Skips views that come faster than they can be written, except for the last.
    pub(crate) fn store_changes(
        self: Arc<Self>,
        key: ViewKey,
        published: Arc<PublishedView>,
    ) -> impl Future<Output = ()> + Send {
        // Not in the future: there may be newer views when that starts.
        let mut progress = published.progress();
        let mut stored = progress.borrow().views;
        let mut backoff = Backoff::new(SPACING, RETRY_MAX);
        async move {
            while let Some(ViewProgress { views, ended, .. }) =
                next_view(&mut progress, stored).await
            {
                let Some(view) = published.snapshot().load_full() else { return };
                let wait = if self.write(&key, view).await {
                    stored = views;
                    backoff.reset();
                    SPACING
                } else if ended {
                    return;
                } else {
                    SPACING + backoff.delay(fastrand::f64(), None)
                };
                clock::sleep(wait).await;
            }
        }
    }

    /// Writes a view. Returns whether that succeeded.
    async fn write(&self, key: &ViewKey, view: Arc<Snapshot>) -> bool {
        let Ok(_permit) = self.write_permit.acquire().await else { return false };
        let (directory, key) = (self.path.clone(), key.clone());
        let written = tasks::run_blocking(move || write(&directory, &key, &view)).await;
        let Some(written) = written else { return false };
        // No code under the lock panics.
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = if written.is_ok() { outage.end() } else { outage.begin() };
        drop(outage);
        let directory = self.path.display();
        match &written {
            Err(reason) if changed => {
                tracing::warn!(path = %directory, %reason, "can't store views, retrying");
            }
            Err(reason) => tracing::debug!(path = %directory, %reason, "can't store a view"),
            Ok(()) if changed => tracing::info!(path = %directory, "storing views again"),
            Ok(()) => {}
        }
        written.is_ok()
    }
}

/// Waits for views beyond the first `stored` ones. Returns none if there can't be any.
async fn next_view(
    progress: &mut watch::Receiver<ViewProgress>,
    stored: u64,
) -> Option<ViewProgress> {
    let is_new = |progress: &ViewProgress| progress.views > stored || progress.ended;
    let progress = progress.wait_for(is_new).await.ok()?.clone();
    (progress.views > stored).then_some(progress)
}

fn read(path: &Path, key: &ViewKey) -> Result<StoredView, ReadError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(ReadError::TooLarge);
    }
    Ok(file::decode(key, &bytes)?)
}

/// A reader finds the view before this one or this one, also after a crash. The directory is not
/// synced: after a power loss that may be the view before.
fn write(directory: &Path, key: &ViewKey, view: &Snapshot) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".").suffix(".view").tempfile_in(directory)?;
    file.write_all(&file::encode(key, view))?;
    file.as_file().sync_data()?;
    file.persist(directory.join(key.file_name()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::proto::Instance;

    fn orders() -> ViewKey {
        ViewKey { namespace: String::new(), service: "orders".into() }
    }

    fn view(ids: &[&str]) -> Snapshot {
        Snapshot::new(ids.iter().map(|id| Instance { id: (*id).into(), ..Instance::default() }))
    }

    fn ids(stored: Option<StoredView>) -> Option<Vec<String>> {
        stored.map(|stored| stored.registered.into_iter().map(|instance| instance.id).collect())
    }

    #[tokio::test]
    async fn the_last_view_is_read_and_no_other_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let views = ViewDir::new(directory.path().join("not/there/yet"));
        assert_eq!(views.read(&orders()).await, None);
        assert!(views.write(&orders(), Arc::new(view(&["a"]))).await);
        assert!(views.write(&orders(), Arc::new(view(&["a", "b"]))).await);
        assert_eq!(ids(views.read(&orders()).await), Some(vec!["a".into(), "b".into()]));
        let files: Vec<_> = fs::read_dir(&views.path).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }

    #[tokio::test]
    async fn one_view_a_second_is_stored_and_always_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let views = Arc::new(ViewDir::new(directory.path().into()));
        let published = Arc::new(PublishedView::new(Arc::default()));
        published.publish(view(&["read"]));
        let storing = Arc::clone(&views).store_changes(orders(), Arc::clone(&published));
        let began = clock::now();
        let mut found = BTreeSet::new();
        let changing = async {
            found.extend(ids(views.read(&orders()).await));
            for round in 0..1_000 {
                published.publish(view(&[&format!("{round}")]));
                found.extend(ids(views.read(&orders()).await));
            }
            published.close();
        };
        tokio::join!(storing, changing);
        assert_eq!(ids(views.read(&orders()).await), Some(vec!["999".into()]));
        assert!(!found.contains(&vec!["read".to_owned()]), "it is stored already");
        let spacings = began.elapsed().as_secs() as usize + 1;
        assert!(found.len() <= spacings, "{} in {spacings} s", found.len());
    }

    #[tokio::test]
    async fn the_last_view_is_stored_once_the_disk_recovers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("views");
        // A file where the directory should be.
        fs::write(&path, "").unwrap();
        let views = Arc::new(ViewDir::new(path.clone()));
        let published = Arc::new(PublishedView::new(Arc::default()));
        let storing = Arc::clone(&views).store_changes(orders(), Arc::clone(&published));
        published.publish(view(&["a"]));
        let recovering = async {
            // Until a write has failed.
            while !views.outage.lock().unwrap().end() {
                tokio::task::yield_now().await;
            }
            published.publish(view(&["b"]));
            fs::remove_file(&path).unwrap();
            while ids(views.read(&orders()).await) != Some(vec!["b".into()]) {
                clock::sleep(Duration::from_millis(5)).await;
            }
            published.close();
        };
        tokio::join!(storing, recovering);
    }
}
