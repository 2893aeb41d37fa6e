//! The task that keeps the view of one service up to date: watches, folds, publishes, and starts
//! again after every failure. Keeps the last good view, however long the registry is unreachable.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    cache::{Cache, CacheChange, WatchViolation},
    disk::ViewDir,
    file::{StoredView, ViewKey},
    published::PublishedView,
};
use crate::{
    proto::{WatchRequest, WatchResponse, discovery_client::DiscoveryClient},
    registry::{
        CredentialChanges, Outage, REQUEST_TIMEOUT, RegistryConnection, RegistryLink,
        RequestFailure, Retryability, denied_backoff, denied_delay, message,
    },
    runtime::{
        backoff::Backoff,
        clock::{self, Instant},
        tasks,
    },
};

/// The longest silence of a stream. A registry sends a message at least every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// The largest message. Registries send parts of up to 4 MiB.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// The delay after a refusal.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// The most messages that are folded before their result is published, if they have already
/// arrived.
const FOLDS_MAX: usize = 64;

/// The state of the task.
pub(crate) struct Watcher {
    pub(crate) link: Arc<RegistryLink>,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) keep_missing_for: Duration,
    pub(crate) view_dir: Option<Arc<ViewDir>>,
    pub(crate) published: Arc<PublishedView>,
    pub(crate) stop: CancellationToken,
}

/// However the task ends, with its runtime for example: no reader must wait for it any more.
impl Drop for Watcher {
    fn drop(&mut self) {
        self.published.mark_stale(clock::now());
        self.published.close();
    }
}

/// The end of a stream.
enum WatchEnd {
    Closed,
    Silent,
    Status(Box<Status>),
    Violation(WatchViolation),
}

/// The delays between the attempts of one watch.
struct WatchWaits {
    retry: Backoff,
    /// While the credentials are refused.
    denied: Backoff,
    outage: Outage,
    credentials: CredentialChanges,
}

/// The time of the next attempt.
enum NextAttempt {
    After(Duration),
    /// As soon as the credentials change, or after this.
    WithCredentials(Duration),
}

impl fmt::Display for WatchEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => formatter.write_str("the registry ended the stream"),
            Self::Silent => formatter.write_str("the registry sent no message for too long"),
            Self::Status(status) => formatter.write_str(message(status)),
            Self::Violation(violation) => violation.fmt(formatter),
        }
    }
}

impl WatchEnd {
    fn retryability(&self) -> Retryability {
        match self {
            Self::Status(status) => Retryability::of(status),
            Self::Closed | Self::Silent | Self::Violation(_) => Retryability::Retry { after: None },
        }
    }
}

impl Watcher {
    /// Runs until it is stopped.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.watch_forever()).await;
    }

    async fn watch_forever(self) {
        let mut cache = self.restore().await;
        let mut waits = WatchWaits {
            retry: self.link.backoff(),
            denied: denied_backoff(),
            outage: Outage::default(),
            credentials: self.link.credentials(),
        };
        loop {
            let began = clock::now();
            waits.credentials.mark_unchanged();
            let (peer, end) = self.watch_once(&mut cache, &mut waits.outage).await;
            let ended = clock::now();
            cache.disconnected(ended);
            self.published.mark_stale(ended);
            // Only a stream that lasted proves that the registry works.
            if ended >= began + waits.retry.cap() {
                waits.retry.reset();
                waits.denied.reset();
            }
            match self.next_attempt(&peer, &end, &mut waits) {
                NextAttempt::After(delay) => clock::sleep(delay).await,
                NextAttempt::WithCredentials(delay) => {
                    let _ = clock::within(delay, waits.credentials.changed()).await;
                }
            }
        }
    }

    /// Creates the cache from the stored view. Starts to store the views published from here on.
    async fn restore(&self) -> Cache {
        let mut cache = Cache::new(self.keep_missing_for, Arc::clone(self.published.stats()));
        let Some(views) = &self.view_dir else { return cache };
        let (namespace, service) = (self.namespace.clone(), self.service.clone());
        let key = ViewKey { namespace, service };
        if let Some(StoredView { cursor, registered, missing }) = views.read(&key).await {
            cache.restore(cursor, registered, missing, clock::now());
        }
        if cache.is_complete() {
            self.publish(&cache);
        }
        let storing = Arc::clone(views).store_changes(key, Arc::clone(&self.published));
        tasks::spawn("views", storing);
        cache
    }

    /// Follows one stream, and those that it moves to. Returns why it ended, and the address.
    async fn watch_once(&self, cache: &mut Cache, outage: &mut Outage) -> (Arc<str>, WatchEnd) {
        // Subscribed before an address is chosen, so that no move after that is missed.
        let moves = self.link.moves();
        let mut connection = match self.link.connect().await {
            Ok(connection) => connection,
            Err(RequestFailure { peer, status, .. }) => {
                return (peer, WatchEnd::Status(Box::new(status)));
            }
        };
        let end = match self.open(&connection, cache).await {
            Ok(stream) => {
                if outage.end() {
                    let (namespace, service) = (&self.namespace, &self.service);
                    tracing::info!(namespace, service, peer = &*connection.peer, "watching again");
                }
                self.follow(&mut connection, stream, moves, cache).await
            }
            Err(end) => end,
        };
        self.report_end(&connection, &end);
        (connection.peer, end)
    }

    fn report_end(&self, connection: &RegistryConnection, end: &WatchEnd) {
        match end {
            WatchEnd::Status(status) => self.link.report_failure(connection, status),
            end => self.link.fail_with(connection, &end.to_string()),
        }
    }

    async fn open(
        &self,
        connection: &RegistryConnection,
        cache: &Cache,
    ) -> Result<Streaming<WatchResponse>, WatchEnd> {
        let request = WatchRequest {
            namespace: self.namespace.clone(),
            services: vec![self.service.clone()],
            filter: None,
            resume: cache.cursor().cloned(),
        };
        let mut registry = DiscoveryClient::new(connection.transport.clone())
            .max_decoding_message_size(MESSAGE_MAX);
        let opened = clock::within(REQUEST_TIMEOUT, registry.watch(request)).await;
        let opened = opened.ok_or(WatchEnd::Silent)?;
        Ok(opened.map_err(|status| WatchEnd::Status(Box::new(status)))?.into_inner())
    }

    /// Follows a stream until it ends. It moves to the primary registry after a failback, and to a
    /// connection with renewed credentials.
    async fn follow(
        &self,
        connection: &mut RegistryConnection,
        mut stream: Streaming<WatchResponse>,
        mut moves: watch::Receiver<u64>,
        cache: &mut Cache,
    ) -> WatchEnd {
        let mut last_message_at = clock::now();
        let mut move_at: Option<Instant> = None;
        loop {
            let deadline = last_message_at + SILENCE_MAX;
            let wakes = [cache.next_expiry(), move_at, Some(deadline)];
            let wake = wakes.into_iter().flatten().min().unwrap_or(deadline);
            // Messages that arrived in time come first: this process itself may have been
            // suspended.
            tokio::select! {
                biased;
                message = stream.message() => {
                    last_message_at = clock::now();
                    if let Err(end) = self.receive(message, &mut stream, cache, last_message_at) {
                        return end;
                    }
                    self.link.mark_connected(connection);
                }
                Ok(()) = moves.changed() => {
                    let delay = self.link.move_delay(connection, fastrand::f64());
                    move_at = delay.map(|delay| clock::now() + delay.of_watch()).or(move_at);
                }
                () = clock::sleep_until(wake) => {
                    let now = clock::now();
                    self.expire_missing(cache, now);
                    if now >= deadline {
                        return WatchEnd::Silent;
                    }
                    if move_at.take_if(|at| *at <= now).is_some()
                        && let Some((next, moved)) = self.move_stream(connection, cache).await
                    {
                        (*connection, stream, last_message_at) = (next, moved, clock::now());
                    }
                }
            }
        }
    }

    /// Opens a stream on the connection that succeeds the present one. It continues the present
    /// stream, which stays open until then: if the next one fails, nothing is lost.
    async fn move_stream(
        &self,
        present: &RegistryConnection,
        cache: &mut Cache,
    ) -> Option<(RegistryConnection, Streaming<WatchResponse>)> {
        let connection = self.link.connect().await.ok().filter(|next| next.succeeds(present))?;
        match self.open(&connection, cache).await {
            Ok(stream) => {
                // The rest of a partial snapshot would have come over the previous stream.
                cache.disconnected(clock::now());
                Some((connection, stream))
            }
            Err(end) => {
                self.report_end(&connection, &end);
                None
            }
        }
    }

    /// Folds `message` and those that have already arrived behind it, and publishes the result.
    fn receive(
        &self,
        message: Result<Option<WatchResponse>, Status>,
        stream: &mut Streaming<WatchResponse>,
        cache: &mut Cache,
        now: Instant,
    ) -> Result<(), WatchEnd> {
        let mut changed = false;
        let mut next = Some(message);
        let mut folds = 0;
        let outcome = loop {
            let Some(message) = next else { break Ok(()) };
            if let Ok(Some(message)) = &message {
                self.published.stats().metrics().changes_received(message);
            }
            match fold(message, cache, now) {
                Ok(fold) => changed |= fold == CacheChange::Changed,
                Err(end) => break Err(end),
            }
            folds += 1;
            next = if folds < FOLDS_MAX { stream.message().now_or_never() } else { None };
        };
        // After a violation nothing is published; what came before any other end is.
        if changed && !matches!(outcome, Err(WatchEnd::Violation(_))) {
            self.publish(cache);
        }
        // Last, so that a reader that waits for it finds the view.
        if outcome.is_ok() && cache.is_complete() {
            self.published.mark_fresh();
        }
        outcome
    }

    fn expire_missing(&self, cache: &mut Cache, now: Instant) {
        if cache.expire_missing(now) == CacheChange::Changed {
            self.publish(cache);
        }
    }

    fn publish(&self, cache: &Cache) {
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

    /// Logs the end of a stream. Returns the time of the next attempt.
    fn next_attempt(&self, peer: &str, end: &WatchEnd, waits: &mut WatchWaits) -> NextAttempt {
        let (namespace, service) = (&self.namespace, &self.service);
        match end.retryability() {
            Retryability::Retry { after } => {
                // Once for each outage: further attempts add nothing.
                let what = "can't watch the service, retrying";
                if waits.outage.begin() {
                    tracing::warn!(namespace, service, peer, reason = %end, "{what}");
                } else {
                    tracing::debug!(namespace, service, peer, reason = %end, "{what}");
                }
                NextAttempt::After(waits.retry.delay(fastrand::f64(), after))
            }
            Retryability::Denied(refusal) => {
                // The link has logged it once, for all watches.
                tracing::debug!(namespace, service, peer, reason = %end, "watch denied, retrying");
                self.published.set_refusal(refusal);
                let renewed = waits.credentials.since_marked();
                let delay = denied_delay(&mut waits.denied, renewed, fastrand::f64());
                NextAttempt::WithCredentials(delay)
            }
            Retryability::Fatal(refusal) => {
                waits.outage.end();
                let reason = refusal.to_string();
                if self.published.set_refusal(refusal) {
                    let what = "the registry refused the watch";
                    tracing::warn!(namespace, service, peer, reason, "{what}");
                }
                NextAttempt::After(REFUSED_WAIT.mul_f64(0.5 + fastrand::f64() / 2.0))
            }
        }
    }
}

fn fold(
    message: Result<Option<WatchResponse>, Status>,
    cache: &mut Cache,
    now: Instant,
) -> Result<CacheChange, WatchEnd> {
    match message {
        Ok(Some(message)) => cache.fold(message, now).map_err(WatchEnd::Violation),
        Ok(None) => Err(WatchEnd::Closed),
        Err(status) => Err(WatchEnd::Status(Box::new(status))),
    }
}
