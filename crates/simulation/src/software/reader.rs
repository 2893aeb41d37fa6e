//! A raw watcher: reports everything that its watch sends, reads as promptly as configured, and
//! resumes when its stream breaks.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use waypost_client::proto::{
    Cursor, Filter, Instance, WatchRequest, WatchResponse, discovery_client::DiscoveryClient,
    watch_response,
};

use crate::{
    access::Subject,
    journal::{Event, Journal, WatchMessage},
    network::connection::{Keeping, Wire},
    network::socket::Process,
    time::{HostClock, Millis},
};

/// A stream without messages for this time is closed.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// Room for what a prompt reader has not read.
const WINDOW: u32 = 1024 * 1024;
/// The same for one that is to feel it.
const WINDOW_SMALL: u32 = 2048;

/// The pace of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadingMode {
    /// Reads at once; the reference for all others.
    Recording,
    /// At once.
    Prompt,
    /// Pauses now and then, up to this time.
    Pausing { pause_max_ms: Millis },
    /// Watches without reading.
    Stuck,
}

/// A reader of a watch.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) number: usize,
    pub(crate) subject: Subject,
    pub(crate) mode: ReadingMode,
    /// The share of streams that resume.
    pub(crate) resumes_percent: u8,
    pub(crate) process: Process,
    pub(crate) clock: HostClock,
    pub(crate) journal: Journal,
    pub(crate) random: Rng,
}

impl Reader {
    /// Reads until it is ended.
    pub(crate) async fn run(mut self) {
        let mut cursor = None;
        loop {
            self.read_once(&mut cursor).await;
            let wait_ms = match self.mode {
                ReadingMode::Recording => 20,
                _ => self.random.u64(20..800),
            };
            sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    fn tell(&self, event: Event) {
        self.journal.write(self.clock.now(), event);
    }

    async fn read_once(&mut self, cursor: &mut Option<Cursor>) {
        let (window, keeping) = match self.mode {
            ReadingMode::Recording => (WINDOW, Keeping::Patient),
            ReadingMode::Prompt => (WINDOW, Keeping::Watchful),
            ReadingMode::Pausing { .. } | ReadingMode::Stuck => (WINDOW_SMALL, Keeping::Watchful),
        };
        let opening = Wire::open(&self.process, window, keeping);
        let Ok(Some(wire)) = timeout(Duration::from_secs(3), opening).await else { return };
        let resume = cursor.clone().filter(|_| self.random.u8(..100) < self.resumes_percent);
        let resumed = resume.is_some();
        let request = WatchRequest {
            namespace: self.subject.namespace.clone(),
            services: self.subject.services.clone(),
            filter: Some(Filter { zones: self.subject.zones.clone(), ..Filter::default() }),
            resume,
        };
        let asked_at = self.clock.now();
        let mut discovery = DiscoveryClient::with_origin(wire, Wire::origin());
        let opening = timeout(Duration::from_secs(5), discovery.watch(request));
        let mut stream = match opening.await {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(status)) => return self.note_refusal(&status, asked_at),
            Err(_) => return,
        };
        self.tell(Event::Opened { reader: self.number, resumed, asked_at });
        if !resumed {
            // From here on it has no cursor until it has a snapshot.
            *cursor = None;
        }
        if self.mode == ReadingMode::Stuck {
            sleep(Duration::from_millis(self.random.u64(30_000..200_000))).await;
        } else {
            let mut parts = Vec::new();
            let silence_max =
                if self.mode == ReadingMode::Recording { Duration::MAX } else { SILENCE_MAX };
            loop {
                match timeout(silence_max, stream.message()).await {
                    Ok(Ok(Some(message))) => self.hear(message, &mut parts, cursor),
                    Ok(Err(status)) => break self.note_refusal(&status, asked_at),
                    _ => break,
                }
                self.pause_reading().await;
            }
        }
        self.tell(Event::Ended { reader: self.number });
    }

    fn note_refusal(&self, status: &Status, asked_at: Millis) {
        if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) {
            self.tell(Event::Refused { reader: self.number, asked_at });
        }
    }

    fn hear(&self, message: WatchResponse, parts: &mut Vec<Instance>, cursor: &mut Option<Cursor>) {
        let position = message.cursor.unwrap_or_default();
        let message = match message.event {
            Some(watch_response::Event::Snapshot(part)) => {
                parts.extend(part.instances);
                if !part.last {
                    return;
                }
                WatchMessage::Snapshot(std::mem::take(parts))
            }
            Some(watch_response::Event::Changes(changes)) => WatchMessage::Changes(changes.changes),
            Some(watch_response::Event::Idle(_)) => WatchMessage::Idle,
            None => return self.tell(Event::Wrong("a message of a watch is empty".to_owned())),
        };
        let Cursor { history_id: history, revision } = position.clone();
        self.tell(Event::Received { reader: self.number, history, revision, message });
        *cursor = Some(position);
    }

    async fn pause_reading(&mut self) {
        if let ReadingMode::Pausing { pause_max_ms } = self.mode
            && self.random.u8(..4) == 0
        {
            sleep(Duration::from_millis(self.random.u64(..pause_max_ms))).await;
        }
    }
}
