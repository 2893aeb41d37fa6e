//! The heartbeats of all registrations of a client: what is due goes out together, over one stream. It
//! must never decide when a heartbeat is due, how long its answer may take, or when to try again: that
//! is each lease's.

use std::{
    collections::HashSet,
    future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    proto::{KeepAliveRequest, KeepAliveResponse, registry_client::RegistryClient},
    registry::{REQUEST_TIMEOUT, RegistryConnection, RegistryLink, RequestFailure},
    runtime::{
        clock::{self, Instant},
        tasks,
    },
};

/// The most leases that a registry takes in one heartbeat.
const LEASES_MAX: usize = 65_536;

/// Carries the heartbeats of a client. Opens a stream when the first registration joins; it is closed
/// when the last one has left.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    link: Arc<RegistryLink>,
    /// The one in use, unless it is broken.
    stream: Mutex<Option<Arc<HeartbeatStream>>>,
}

/// One stream, from the attempt to open it until it breaks. Its task ends when it is broken, or when no
/// seat on it is left.
#[derive(Debug)]
struct HeartbeatStream {
    phase: watch::Sender<StreamPhase>,
    /// At most one for each seat that is taken.
    pending: Mutex<Vec<PendingHeartbeat>>,
    added: Notify,
    /// What it runs over, once there is a connection.
    connection: OnceLock<RegistryConnection>,
    broken: CancellationToken,
}

#[derive(Clone, Debug)]
enum StreamPhase {
    Connecting,
    Opening,
    Open,
    Broken(StreamBreak),
}

/// How a stream ended.
#[derive(Clone, Debug)]
pub(crate) enum StreamBreak {
    /// It broke.
    Failed {
        failure: RequestFailure,
        /// From 0 to 1, the same for all who lived on the stream: they come back together, over one
        /// stream again, instead of one attempt after the other.
        random: f64,
    },
    /// It is well, but heartbeats return to the first registry.
    Moved,
}

/// A heartbeat that waits to go out, or for its answer.
#[derive(Debug)]
struct PendingHeartbeat {
    lease_id: u64,
    result: oneshot::Sender<Renewal>,
}

/// What a heartbeat came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Renewal {
    Renewed,
    /// The lease does not live.
    Unknown,
}

/// A registration's place on a stream. Leaves it when it is dropped.
#[derive(Debug)]
pub(crate) struct StreamHandle {
    heartbeats: Arc<Heartbeats>,
    stream: Arc<HeartbeatStream>,
    phase: watch::Receiver<StreamPhase>,
    /// Of the heartbeat that has not been answered.
    response: Option<oneshot::Receiver<Renewal>>,
}

impl Heartbeats {
    pub(crate) fn new(link: Arc<RegistryLink>) -> Arc<Self> {
        Arc::new(Self { link, stream: Mutex::default() })
    }

    /// A seat on the stream in use, or on one that is being opened from now on. The heartbeat of
    /// `lease_id` goes out as soon as it can.
    pub(crate) fn join(self: &Arc<Self>, lease_id: u64) -> StreamHandle {
        let (mut handle, fresh) = self.attach();
        if let Some(stream) = fresh {
            // Made here: the line is told of its end even where the runtime does not run it any more.
            let run = StreamTask { heartbeats: Arc::clone(self), stream };
            tasks::spawn("heartbeats", run.run());
        }
        handle.send(lease_id);
        handle
    }

    /// A seat, and the line where it is a new one.
    fn attach(self: &Arc<Self>) -> (StreamHandle, Option<Arc<HeartbeatStream>>) {
        let mut current = lock(&self.stream);
        let fresh = current.is_none();
        let stream = Arc::clone(current.get_or_insert_with(|| Arc::new(HeartbeatStream::new())));
        let phase = stream.phase.subscribe();
        let wait_open = fresh.then(|| Arc::clone(&stream));
        (StreamHandle { heartbeats: Arc::clone(self), stream, phase, response: None }, wait_open)
    }

    /// Ends `line` with what went wrong, unless it is broken already. All who live on it learn of it,
    /// and who joins from now on gets another one.
    fn fail(&self, stream: &Arc<HeartbeatStream>, status: Status) {
        if stream.broken.is_cancelled() {
            return;
        }
        let peer = match stream.connection.get() {
            Some(connection) => {
                self.link.fail(connection);
                Arc::clone(&connection.peer)
            }
            None => Arc::default(),
        };
        self.close(stream, StreamBreak::failed(RequestFailure { peer, status }));
    }

    fn close(&self, stream: &Arc<HeartbeatStream>, broken: StreamBreak) {
        lock(&self.stream).take_if(|current| Arc::ptr_eq(current, stream));
        stream.phase.send_if_modified(|phase| {
            let first = !matches!(phase, StreamPhase::Broken(_));
            if first {
                *phase = StreamPhase::Broken(broken);
            }
            first
        });
        stream.broken.cancel();
    }

    /// Waits until nobody sits on `line`, and retires it.
    async fn wait_unused(&self, stream: &Arc<HeartbeatStream>) {
        loop {
            stream.phase.closed().await;
            let mut current = lock(&self.stream);
            // Nobody can join now; somebody may have before.
            if stream.phase.receiver_count() == 0 {
                current.take_if(|current| Arc::ptr_eq(current, stream));
                return;
            }
        }
    }
}

impl StreamHandle {
    /// Waits until the stream is open. `limit` is for the registry's answer: one that takes a
    /// connection and gives none is given up, for all who wait. Cancel safe.
    pub(crate) async fn wait_open(&mut self, limit: Duration) -> Result<(), StreamBreak> {
        let connected = self.wait_phase(|phase| !matches!(phase, StreamPhase::Connecting));
        if clock::within(REQUEST_TIMEOUT, connected).await.is_none() {
            return Err(self.fail_timed_out());
        }
        let wait_open =
            self.wait_phase(|phase| matches!(phase, StreamPhase::Open | StreamPhase::Broken(_)));
        match clock::within(limit, wait_open).await {
            Some(StreamPhase::Broken(broken)) => Err(broken),
            Some(_) => Ok(()),
            None => Err(self.fail_timed_out()),
        }
    }

    /// Lets the heartbeat of `lease_id` go out, with all others that are due by then.
    pub(crate) fn send(&mut self, lease_id: u64) {
        let (result, response) = oneshot::channel();
        self.response = Some(response);
        lock(&self.stream.pending).push(PendingHeartbeat { lease_id, result });
        self.stream.added.notify_one();
    }

    /// What the heartbeat came to, or how the stream broke, whichever is first. Cancel safe.
    pub(crate) async fn result(&mut self) -> Result<Renewal, StreamBreak> {
        let answered = async {
            let renewal = self.response.as_mut()?.await.ok();
            // Heard once, even where the stream has ended and this is asked again.
            self.response = None;
            renewal
        };
        tokio::select! {
            biased;
            Some(renewal) = answered => Ok(renewal),
            broken = broken(&self.stream) => Err(broken),
        }
    }

    /// Breaks the stream, for all who live on it: no answer came in time.
    pub(crate) fn fail_timed_out(&mut self) -> StreamBreak {
        self.heartbeats.fail(&self.stream, Status::deadline_exceeded("no answer in time"));
        self.stream.break_reason().expect("it is broken now")
    }

    async fn wait_phase(&mut self, wanted: impl FnMut(&StreamPhase) -> bool) -> StreamPhase {
        let phase = self.phase.wait_for(wanted).await;
        phase.expect("a seat holds the line, and that the sender").clone()
    }
}

/// Waits until `line` is broken. Cancel safe.
async fn broken(stream: &HeartbeatStream) -> StreamBreak {
    stream.broken.cancelled().await;
    stream.break_reason().expect("it is broken before the token tells so")
}

impl HeartbeatStream {
    fn new() -> Self {
        Self {
            phase: watch::Sender::new(StreamPhase::Connecting),
            pending: Mutex::default(),
            added: Notify::new(),
            connection: OnceLock::new(),
            broken: CancellationToken::new(),
        }
    }

    /// What is broken stays so.
    fn advance(&self, next: StreamPhase) {
        self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, StreamPhase::Broken(_));
            if goes_on {
                *phase = next;
            }
            goes_on
        });
    }

    /// How it broke, where it has.
    fn break_reason(&self) -> Option<StreamBreak> {
        match &*self.phase.borrow() {
            StreamPhase::Broken(broken) => Some(broken.clone()),
            _ => None,
        }
    }

    /// Takes what is due, as much as a message holds.
    fn take_pending(&self) -> Vec<PendingHeartbeat> {
        let mut due = lock(&self.pending);
        // Nobody waits for these any more.
        due.retain(|due| !due.result.is_closed());
        let first = due.len().min(LEASES_MAX);
        let rest = due.split_off(first);
        std::mem::replace(&mut due, rest)
    }

    /// Waits until something is due, and takes it. Cancel safe.
    async fn next_pending(&self) -> Vec<PendingHeartbeat> {
        loop {
            let due = self.take_pending();
            if !due.is_empty() {
                return due;
            }
            self.added.notified().await;
        }
    }
}

/// What a line's task works with.
struct StreamTask {
    heartbeats: Arc<Heartbeats>,
    stream: Arc<HeartbeatStream>,
}

impl StreamTask {
    /// Opens a stream and carries heartbeats over it until it breaks, or until nobody needs it.
    async fn run(self) {
        let Self { heartbeats, stream } = &self;
        tokio::select! {
            biased;
            () = self.connect_and_drive() => {}
            () = stream.broken.cancelled() => {}
            () = heartbeats.wait_unused(stream) => {}
        }
    }

    async fn connect_and_drive(&self) {
        let Self { heartbeats, stream } = self;
        // From before an address is chosen: of a return after that it is told.
        let failbacks = heartbeats.link.failbacks();
        let connection = match heartbeats.link.connect().await {
            Ok(connection) => stream.connection.get_or_init(|| connection),
            Err(failure) => return heartbeats.close(stream, StreamBreak::failed(failure)),
        };
        stream.advance(StreamPhase::Opening);
        match Box::pin(drive(&heartbeats.link, connection, stream, failbacks)).await {
            DriveEnd::Failed(status) => heartbeats.fail(stream, status),
            DriveEnd::Failback(bidi) => {
                heartbeats.close(stream, StreamBreak::Moved);
                // Until all have renewed elsewhere: the end of this one is not to be theirs.
                tasks::spawn("heartbeats before", async move {
                    clock::sleep(REQUEST_TIMEOUT).await;
                    drop(bidi);
                });
            }
        }
    }
}

/// However it ends, with its runtime, say: nobody goes on living on it.
impl Drop for StreamTask {
    fn drop(&mut self) {
        let peer = Arc::default();
        let status = Status::unavailable("the stream has ended with its runtime");
        self.heartbeats.close(&self.stream, StreamBreak::failed(RequestFailure { peer, status }));
    }
}

impl StreamBreak {
    fn failed(failure: RequestFailure) -> Self {
        Self::Failed { failure, random: fastrand::f64() }
    }
}

/// Both directions of a stream, which ends with them.
type BidiStream = (mpsc::Sender<KeepAliveRequest>, Streaming<KeepAliveResponse>);

/// Why heartbeats don't go over a stream any more.
enum DriveEnd {
    Failed(Status),
    /// They return to the first registry.
    Failback(Box<BidiStream>),
}

/// What comes after an answer.
enum StreamEvent {
    Pending(Vec<PendingHeartbeat>),
    Failed(Status),
    Failback,
}

/// Sends what is due and hears the answers, one message at a time: what comes to be due while one is on
/// its way goes out with the next.
async fn drive(
    link: &RegistryLink,
    connection: &RegistryConnection,
    stream: &HeartbeatStream,
    mut failbacks: watch::Receiver<u64>,
) -> DriveEnd {
    let (requests, outgoing) = mpsc::channel(1);
    let mut sent = stream.take_pending();
    // Not lost where the registry answers the stream's head only after the first request.
    requests.try_send(request(&sent)).expect("a new channel has room");
    let mut registry = RegistryClient::new(connection.transport.clone());
    let mut responses = match registry.keep_alive(ReceiverStream::new(outgoing)).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return DriveEnd::Failed(status),
    };
    stream.advance(StreamPhase::Open);
    let mut move_at = None;
    loop {
        match receive(&mut responses).await {
            Ok(response) => dispatch_results(sent, response),
            Err(status) => return DriveEnd::Failed(status),
        }
        link.mark_connected(connection);
        let coming = async {
            loop {
                tokio::select! {
                    biased;
                    status = wait_end(&mut responses) => return StreamEvent::Failed(status),
                    due = stream.next_pending() => return StreamEvent::Pending(due),
                    Ok(()) = failbacks.changed(), if !connection.is_primary() => {
                        move_at = Some(clock::now() + link.failback_delay(fastrand::f64()));
                    }
                    () = sleep_until_some(move_at) => return StreamEvent::Failback,
                }
            }
        };
        sent = match coming.await {
            StreamEvent::Pending(due) => due,
            StreamEvent::Failed(status) => return DriveEnd::Failed(status),
            StreamEvent::Failback => return DriveEnd::Failback(Box::new((requests, responses))),
        };
        // The one before was answered, so there is room unless the stream is gone.
        if requests.try_send(request(&sent)).is_err() {
            return DriveEnd::Failed(Status::unavailable("the stream takes no heartbeat"));
        }
    }
}

/// Waits until then; for ever where there is no such time.
async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => clock::sleep_until(at).await,
        None => future::pending().await,
    }
}

fn request(due: &[PendingHeartbeat]) -> KeepAliveRequest {
    KeepAliveRequest { lease_ids: due.iter().map(|due| due.lease_id).collect() }
}

/// Tells each what its heartbeat came to.
fn dispatch_results(sent: Vec<PendingHeartbeat>, response: KeepAliveResponse) {
    let unknown: HashSet<u64> = response.unknown_lease_ids.into_iter().collect();
    for PendingHeartbeat { lease_id, result } in sent {
        let renewal = if unknown.contains(&lease_id) { Renewal::Unknown } else { Renewal::Renewed };
        // Nobody waits for it who has left meanwhile.
        let _ = result.send(renewal);
    }
}

async fn receive(
    responses: &mut Streaming<KeepAliveResponse>,
) -> Result<KeepAliveResponse, Status> {
    let ended = || Status::unavailable("the registry ended the stream");
    responses.message().await?.ok_or_else(ended)
}

/// Waits until the stream ends. What nobody asked for is passed over. Cancel safe.
async fn wait_end(responses: &mut Streaming<KeepAliveResponse>) -> Status {
    loop {
        if let Err(status) = receive(responses).await {
            return status;
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use http::Uri;

    use super::*;
    use crate::{
        runtime::backoff::Backoff,
        transport::{Connector, Dialer},
    };

    /// A pulse whose registry refuses connections, and how many were asked for.
    fn refused() -> (Arc<Heartbeats>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let connector = Connector::new(tower::service_fn(move |_: Uri| {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                let refused: Result<hyper_util::rt::TokioIo<tokio::net::TcpStream>, _> =
                    Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                refused
            }
        }));
        let dialer = Dialer { connector, ..Dialer::default() };
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let address = Uri::from_static("http://registry:7510");
        (
            Heartbeats::new(RegistryLink::new(
                &[address],
                dialer,
                backoff,
                Duration::from_secs(15),
            )),
            asked,
        )
    }

    #[tokio::test]
    async fn who_fails_together_comes_back_together() {
        let (heartbeats, asked) = refused();
        for attempt in 1..4 {
            let mut handles: Vec<StreamHandle> =
                (1..=100).map(|lease_id| heartbeats.join(lease_id)).collect();
            let mut randoms = Vec::new();
            for handle in &mut handles {
                let broken = handle.wait_open(Duration::from_secs(5)).await.unwrap_err();
                let StreamBreak::Failed { failure, random } = broken else { panic!("it broke") };
                assert_eq!(&*failure.peer, "registry:7510");
                randoms.push(random);
            }
            randoms.dedup();
            assert_eq!((randoms.len(), asked.load(Ordering::Relaxed)), (1, attempt));
        }
    }

    #[test]
    fn what_is_due_goes_out_in_messages_that_a_registry_takes_the_oldest_first() {
        let stream = HeartbeatStream::new();
        let mut responses = Vec::new();
        for lease_id in 0..LEASES_MAX as u64 + 10 {
            let (result, response) = oneshot::channel();
            lock(&stream.pending).push(PendingHeartbeat { lease_id, result });
            responses.push(response);
        }
        // Nobody waits for the first any more.
        drop(responses.remove(0));
        let first = request(&stream.take_pending()).lease_ids;
        assert_eq!((first.len(), first[0]), (LEASES_MAX, 1));
        let rest = request(&stream.take_pending()).lease_ids;
        assert_eq!((rest.len(), rest[0]), (9, LEASES_MAX as u64 + 1));
        assert!(stream.take_pending().is_empty());
    }

    #[tokio::test]
    async fn each_is_told_what_its_own_heartbeat_came_to() {
        let (result, known) = oneshot::channel();
        let (other, unknown) = oneshot::channel();
        let sent = vec![
            PendingHeartbeat { lease_id: 1, result },
            PendingHeartbeat { lease_id: 2, result: other },
        ];
        dispatch_results(sent, KeepAliveResponse { unknown_lease_ids: vec![2, 7] });
        assert_eq!(known.await.unwrap(), Renewal::Renewed);
        assert_eq!(unknown.await.unwrap(), Renewal::Unknown);
    }
}
