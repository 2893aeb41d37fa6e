//! The task that keeps the view of one service: watch, fold, publish; again after every failure. It
//! must never take the last good view away, however long the registry is gone.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    backoff::Backoff,
    cache::{Cache, Fold, Violation},
    clock::{self, Instant},
    connection::ConnectError,
    link::{Link, REQUEST_TIMEOUT, Reached},
    proto::{WatchRequest, WatchResponse, discovery_client::DiscoveryClient},
    refusal::{Refusal, Verdict},
    snapshot::Snapshot,
};

/// A registry says something at least every 10 s: after this long without a word the stream is
/// given up.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// The largest message that is taken. Registries send parts of up to 4 MiB.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// How many messages that have already come are folded before their result is shown.
const FOLDS_MAX: usize = 64;

/// Where the task shows what it knows, and others look.
#[derive(Debug)]
pub(crate) struct Published {
    snapshot: ArcSwapOption<Snapshot>,
    progress: watch::Sender<Progress>,
}

/// How far the task has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// How many views were shown.
    pub(crate) views: u64,
    /// Why there is no first view, where the registry refused one.
    pub(crate) refusal: Option<Refusal>,
}

impl Published {
    pub(crate) fn empty() -> Self {
        Self { snapshot: ArcSwapOption::empty(), progress: watch::Sender::new(Progress::default()) }
    }

    pub(crate) fn fixed(snapshot: Snapshot) -> Self {
        let published = Self::empty();
        published.publish(snapshot);
        published
    }

    pub(crate) fn snapshot(&self) -> &ArcSwapOption<Snapshot> {
        &self.snapshot
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn publish(&self, snapshot: Snapshot) {
        // In this order: who is woken must find the new view.
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.progress.send_modify(|progress| {
            progress.views += 1;
            progress.refusal = None;
        });
    }

    fn refuse(&self, refusal: Refusal) {
        self.progress.send_modify(|progress| progress.refusal = Some(refusal));
    }
}

/// The task's state.
pub(crate) struct Watcher {
    pub(crate) link: Arc<Link>,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) hold: Duration,
    pub(crate) published: Arc<Published>,
    pub(crate) stop: CancellationToken,
}

/// Why a stream ended.
enum End {
    Unreachable(ConnectError),
    Closed,
    Silent,
    Status(Box<Status>),
    Violation(Violation),
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(formatter),
            Self::Closed => formatter.write_str("the registry ended the stream"),
            Self::Silent => formatter.write_str("the registry was silent for too long"),
            Self::Status(status) => write!(formatter, "{:?}: {}", status.code(), status.message()),
            Self::Violation(violation) => violation.fmt(formatter),
        }
    }
}

impl Watcher {
    /// Works until stopped.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_watching()).await;
    }

    async fn keep_watching(self) {
        let mut cache = Cache::new(self.hold);
        let mut backoff = self.link.backoff();
        let mut resume = true;
        loop {
            let began = clock::now();
            let end = self.watch_once(&mut cache, resume).await;
            cache.disconnected();
            // Only a stream that lasted proves that the registry is well.
            if clock::now() >= began + backoff.cap() {
                backoff.reset();
            }
            // What a violation leaves behind can't be gone on from.
            resume = !matches!(end, End::Violation(_));
            let delay = self.judge(&end, &mut backoff);
            self.rest(&mut cache, clock::now() + delay).await;
        }
    }

    async fn watch_once(&self, cache: &mut Cache, resume: bool) -> End {
        let reached = match self.link.reach().await {
            Ok(reached) => reached,
            Err(error) => return End::Unreachable(error),
        };
        let end = match self.open(&reached, cache, resume).await {
            Ok(stream) => self.follow(stream, cache).await,
            Err(end) => end,
        };
        self.link.leave(&reached);
        end
    }

    async fn open(
        &self,
        reached: &Reached,
        cache: &Cache,
        resume: bool,
    ) -> Result<Streaming<WatchResponse>, End> {
        let request = WatchRequest {
            namespace: self.namespace.clone(),
            services: vec![self.service.clone()],
            filter: None,
            resume: cache.cursor().filter(|_| resume).cloned(),
        };
        let mut registry =
            DiscoveryClient::new(reached.connection.clone()).max_decoding_message_size(MESSAGE_MAX);
        let opened = clock::within(REQUEST_TIMEOUT, registry.watch(request)).await;
        let opened = opened.ok_or(End::Silent)?;
        Ok(opened.map_err(|status| End::Status(Box::new(status)))?.into_inner())
    }

    async fn follow(&self, mut stream: Streaming<WatchResponse>, cache: &mut Cache) -> End {
        let mut heard = clock::now();
        loop {
            let deadline = heard + SILENCE_MAX;
            let release = cache.next_release();
            let wake = release.map_or(deadline, |release| release.min(deadline));
            tokio::select! {
                message = stream.message() => {
                    heard = clock::now();
                    if let Err(end) = self.take_in(message, &mut stream, cache, heard) {
                        return end;
                    }
                }
                () = clock::sleep_until(wake) => {
                    let now = clock::now();
                    self.release(cache, now);
                    if now >= deadline {
                        return End::Silent;
                    }
                }
            }
        }
    }

    /// Folds `message` and those that have come behind it, and shows the result.
    fn take_in(
        &self,
        message: Result<Option<WatchResponse>, Status>,
        stream: &mut Streaming<WatchResponse>,
        cache: &mut Cache,
        now: Instant,
    ) -> Result<(), End> {
        let mut changed = false;
        let mut next = Some(message);
        let mut folds = 0;
        let outcome = loop {
            let Some(message) = next else { break Ok(()) };
            match fold(message, cache, now) {
                Ok(fold) => changed |= fold == Fold::Changed,
                Err(end) => break Err(end),
            }
            folds += 1;
            next = if folds < FOLDS_MAX { stream.message().now_or_never() } else { None };
        };
        // What a violation leaves behind is not shown; what came before any other end is.
        if changed && !matches!(outcome, Err(End::Violation(_))) {
            self.show(cache);
        }
        outcome
    }

    /// Waits until `until`; instances whose hold ends meanwhile leave.
    async fn rest(&self, cache: &mut Cache, until: Instant) {
        while let Some(release) = cache.next_release().filter(|release| *release < until) {
            clock::sleep_until(release).await;
            self.release(cache, clock::now());
        }
        clock::sleep_until(until).await;
    }

    fn release(&self, cache: &mut Cache, now: Instant) {
        if cache.release(now) == Fold::Changed {
            self.show(cache);
        }
    }

    fn show(&self, cache: &Cache) {
        let view = cache.view();
        tracing::debug!(
            namespace = self.namespace,
            service = self.service,
            revision = view.cursor().revision,
            instances = view.len(),
            serving = view.serving(),
            "view changed"
        );
        self.published.publish(view);
    }

    /// How long to wait before the next attempt, having said why.
    fn judge(&self, end: &End, backoff: &mut Backoff) -> Duration {
        let verdict = match end {
            End::Status(status) => Verdict::of(status),
            _ => Verdict::Transient { after: None },
        };
        let (namespace, service) = (&self.namespace, &self.service);
        match verdict {
            Verdict::Transient { after } => {
                // Once for each outage: the attempts that follow tell nothing new.
                if backoff.is_fresh() {
                    tracing::warn!(namespace, service, reason = %end, "watch ended, reconnecting");
                } else {
                    tracing::debug!(namespace, service, reason = %end, "watch failed again");
                }
                backoff.delay(fastrand::f64(), after)
            }
            Verdict::Refused(refusal) => {
                tracing::warn!(namespace, service, %refusal, "the registry refuses the watch");
                self.published.refuse(refusal);
                backoff.cap()
            }
        }
    }
}

fn fold(
    message: Result<Option<WatchResponse>, Status>,
    cache: &mut Cache,
    now: Instant,
) -> Result<Fold, End> {
    match message {
        Ok(Some(message)) => cache.fold(message, now).map_err(End::Violation),
        Ok(None) => Err(End::Closed),
        Err(status) => Err(End::Status(Box::new(status))),
    }
}
