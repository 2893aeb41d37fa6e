//! A raw watcher on a thread of its own: folds its messages by the contract, checks every rule of
//! cursors, and records each change with its time.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tonic::{Status, transport::Endpoint};
use waypost_client::proto::{
    Change, Cursor, Instance, WatchRequest, discovery_client::DiscoveryClient,
};
use waypost_testing::{
    process::read_port_file,
    registry::{Identity, watch_of},
    watch::Follower,
};

use crate::chaos::replica::SERVICE;

const RECONNECT_INTERVAL: Duration = Duration::from_millis(20);
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// The record of the watcher.
#[derive(Default)]
struct Record {
    changes: Vec<(Instant, Change)>,
    state: BTreeMap<Identity, Instance>,
    /// The position of the state; none while it is not whole.
    cursor: Option<Cursor>,
}

/// A watcher at work. It ends with this value.
pub(crate) struct Observer {
    stop: Arc<AtomicBool>,
    record: Arc<Mutex<Record>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Observer {
    pub(crate) fn start(port_file: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let record = Arc::new(Mutex::new(Record::default()));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&record));
        let port_file = port_file.to_owned();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(observe(port_file, &noted, &stopped));
        });
        Self { stop, record, thread: Some(thread) }
    }

    /// The folded state, and its position.
    pub(crate) fn folded(&self) -> (BTreeMap<Identity, Instance>, Option<Cursor>) {
        let record = self.record.lock().expect("no panic");
        (record.state.clone(), record.cursor.clone())
    }

    /// The changes since the last call.
    pub(crate) fn take_changes(&self) -> Vec<(Instant, Change)> {
        std::mem::take(&mut self.record.lock().expect("no panic").changes)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the observer panicked");
    }
}

async fn observe(port_file: PathBuf, record: &Mutex<Record>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // However it ended: the registry was killed, or is away.
        let _away = watch(&port_file, record, stop).await;
        sleep(RECONNECT_INTERVAL).await;
    }
}

async fn watch(port_file: &Path, record: &Mutex<Record>, stop: &AtomicBool) -> Result<(), Status> {
    let away = |_| Status::unavailable("the registry is away");
    let endpoint = Endpoint::from_shared(format!("http://{}", read_port_file(port_file)?));
    let channel = endpoint.expect("a URI").connect().await.map_err(away)?;
    let (resume, state) = {
        let record = record.lock().expect("no panic");
        (record.cursor.clone(), record.state.clone())
    };
    let request = WatchRequest { resume, ..watch_of(&[SERVICE]) };
    let mut discovery = DiscoveryClient::new(channel);
    let mut follower = Follower::try_resume(&mut discovery, request, state).await?;
    while !stop.load(Ordering::Relaxed) {
        // Cancel safe. The stop is noticed within this interval.
        let message = timeout(STOP_INTERVAL, follower.try_message());
        let Ok(message) = message.await else { continue };
        message?;
        let now = Instant::now();
        let mut record = record.lock().expect("no panic");
        if follower.is_complete() {
            record.state.clone_from(&follower.state);
            record.cursor.clone_from(&follower.cursor);
        }
        record.changes.extend(follower.changes.drain(..).map(|change| (now, change)));
    }
    Ok(())
}
