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
pub(crate) struct Pulse {
    link: Arc<RegistryLink>,
    /// The one in use, unless it is broken.
    line: Mutex<Option<Arc<Line>>>,
}

/// One stream, from the attempt to open it until it breaks. Its task ends when it is broken, or when no
/// seat on it is left.
#[derive(Debug)]
struct Line {
    phase: watch::Sender<Phase>,
    /// At most one for each seat that is taken.
    due: Mutex<Vec<Due>>,
    more: Notify,
    /// What it runs over, once there is a connection.
    connection: OnceLock<RegistryConnection>,
    broken: CancellationToken,
}

#[derive(Clone, Debug)]
enum Phase {
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
struct Due {
    lease_id: u64,
    told: oneshot::Sender<Renewal>,
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
pub(crate) struct Seat {
    pulse: Arc<Pulse>,
    line: Arc<Line>,
    phase: watch::Receiver<Phase>,
    /// Of the heartbeat that has not been answered.
    answer: Option<oneshot::Receiver<Renewal>>,
}

impl Pulse {
    pub(crate) fn new(link: Arc<RegistryLink>) -> Arc<Self> {
        Arc::new(Self { link, line: Mutex::default() })
    }

    /// A seat on the stream in use, or on one that is being opened from now on. The heartbeat of
    /// `lease_id` goes out as soon as it can.
    pub(crate) fn join(self: &Arc<Self>, lease_id: u64) -> Seat {
        let (mut seat, fresh) = self.sit_down();
        if let Some(line) = fresh {
            // Made here: the line is told of its end even where the runtime does not run it any more.
            let run = Run { pulse: Arc::clone(self), line };
            tasks::spawn("heartbeats", run.carry());
        }
        seat.beat(lease_id);
        seat
    }

    /// A seat, and the line where it is a new one.
    fn sit_down(self: &Arc<Self>) -> (Seat, Option<Arc<Line>>) {
        let mut current = lock(&self.line);
        let fresh = current.is_none();
        let line = Arc::clone(current.get_or_insert_with(|| Arc::new(Line::new())));
        let phase = line.phase.subscribe();
        let opened = fresh.then(|| Arc::clone(&line));
        (Seat { pulse: Arc::clone(self), line, phase, answer: None }, opened)
    }

    /// Ends `line` with what went wrong, unless it is broken already. All who live on it learn of it,
    /// and who joins from now on gets another one.
    fn break_off(&self, line: &Arc<Line>, status: Status) {
        if line.broken.is_cancelled() {
            return;
        }
        let peer = match line.connection.get() {
            Some(connection) => {
                self.link.fail(connection);
                Arc::clone(&connection.peer)
            }
            None => Arc::default(),
        };
        self.end(line, StreamBreak::failed(RequestFailure { peer, status }));
    }

    fn end(&self, line: &Arc<Line>, broken: StreamBreak) {
        lock(&self.line).take_if(|current| Arc::ptr_eq(current, line));
        line.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Broken(_));
            if first {
                *phase = Phase::Broken(broken);
            }
            first
        });
        line.broken.cancel();
    }

    /// Waits until nobody sits on `line`, and retires it.
    async fn deserted(&self, line: &Arc<Line>) {
        loop {
            line.phase.closed().await;
            let mut current = lock(&self.line);
            // Nobody can join now; somebody may have before.
            if line.phase.receiver_count() == 0 {
                current.take_if(|current| Arc::ptr_eq(current, line));
                return;
            }
        }
    }
}

impl Seat {
    /// Waits until the stream is open. `limit` is for the registry's answer: one that takes a
    /// connection and gives none is given up, for all who wait. Cancel safe.
    pub(crate) async fn opened(&mut self, limit: Duration) -> Result<(), StreamBreak> {
        let connected = self.until(|phase| !matches!(phase, Phase::Connecting));
        if clock::within(REQUEST_TIMEOUT, connected).await.is_none() {
            return Err(self.give_up());
        }
        let opened = self.until(|phase| matches!(phase, Phase::Open | Phase::Broken(_)));
        match clock::within(limit, opened).await {
            Some(Phase::Broken(broken)) => Err(broken),
            Some(_) => Ok(()),
            None => Err(self.give_up()),
        }
    }

    /// Lets the heartbeat of `lease_id` go out, with all others that are due by then.
    pub(crate) fn beat(&mut self, lease_id: u64) {
        let (told, answer) = oneshot::channel();
        self.answer = Some(answer);
        lock(&self.line.due).push(Due { lease_id, told });
        self.line.more.notify_one();
    }

    /// What the heartbeat came to, or how the stream broke, whichever is first. Cancel safe.
    pub(crate) async fn told(&mut self) -> Result<Renewal, StreamBreak> {
        let answered = async {
            let renewal = self.answer.as_mut()?.await.ok();
            // Heard once, even where the stream has ended and this is asked again.
            self.answer = None;
            renewal
        };
        tokio::select! {
            biased;
            Some(renewal) = answered => Ok(renewal),
            broken = broken(&self.line) => Err(broken),
        }
    }

    /// Breaks the stream, for all who live on it: no answer came in time.
    pub(crate) fn give_up(&mut self) -> StreamBreak {
        self.pulse.break_off(&self.line, Status::deadline_exceeded("no answer in time"));
        self.line.how_broken().expect("it is broken now")
    }

    async fn until(&mut self, wanted: impl FnMut(&Phase) -> bool) -> Phase {
        let phase = self.phase.wait_for(wanted).await;
        phase.expect("a seat holds the line, and that the sender").clone()
    }
}

/// Waits until `line` is broken. Cancel safe.
async fn broken(line: &Line) -> StreamBreak {
    line.broken.cancelled().await;
    line.how_broken().expect("it is broken before the token tells so")
}

impl Line {
    fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Connecting),
            due: Mutex::default(),
            more: Notify::new(),
            connection: OnceLock::new(),
            broken: CancellationToken::new(),
        }
    }

    /// What is broken stays so.
    fn proceed(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, Phase::Broken(_));
            if goes_on {
                *phase = next;
            }
            goes_on
        });
    }

    /// How it broke, where it has.
    fn how_broken(&self) -> Option<StreamBreak> {
        match &*self.phase.borrow() {
            Phase::Broken(broken) => Some(broken.clone()),
            _ => None,
        }
    }

    /// Takes what is due, as much as a message holds.
    fn take_due(&self) -> Vec<Due> {
        let mut due = lock(&self.due);
        // Nobody waits for these any more.
        due.retain(|due| !due.told.is_closed());
        let first = due.len().min(LEASES_MAX);
        let rest = due.split_off(first);
        std::mem::replace(&mut due, rest)
    }

    /// Waits until something is due, and takes it. Cancel safe.
    async fn next_due(&self) -> Vec<Due> {
        loop {
            let due = self.take_due();
            if !due.is_empty() {
                return due;
            }
            self.more.notified().await;
        }
    }
}

/// What a line's task works with.
struct Run {
    pulse: Arc<Pulse>,
    line: Arc<Line>,
}

impl Run {
    /// Opens a stream and carries heartbeats over it until it breaks, or until nobody needs it.
    async fn carry(self) {
        let Self { pulse, line } = &self;
        tokio::select! {
            biased;
            () = self.converse() => {}
            () = line.broken.cancelled() => {}
            () = pulse.deserted(line) => {}
        }
    }

    async fn converse(&self) {
        let Self { pulse, line } = self;
        // From before an address is chosen: of a return after that it is told.
        let failbacks = pulse.link.failbacks();
        let connection = match pulse.link.connect().await {
            Ok(connection) => line.connection.get_or_init(|| connection),
            Err(failure) => return pulse.end(line, StreamBreak::failed(failure)),
        };
        line.proceed(Phase::Opening);
        match Box::pin(talk(&pulse.link, connection, line, failbacks)).await {
            End::Status(status) => pulse.break_off(line, status),
            End::Home(stream) => {
                pulse.end(line, StreamBreak::Moved);
                // Until all have renewed elsewhere: the end of this one is not to be theirs.
                tasks::spawn("heartbeats before", async move {
                    clock::sleep(REQUEST_TIMEOUT).await;
                    drop(stream);
                });
            }
        }
    }
}

/// However it ends, with its runtime, say: nobody goes on living on it.
impl Drop for Run {
    fn drop(&mut self) {
        let peer = Arc::default();
        let status = Status::unavailable("the stream has ended with its runtime");
        self.pulse.end(&self.line, StreamBreak::failed(RequestFailure { peer, status }));
    }
}

impl StreamBreak {
    fn failed(failure: RequestFailure) -> Self {
        Self::Failed { failure, random: fastrand::f64() }
    }
}

/// Both directions of a stream, which ends with them.
type Stream = (mpsc::Sender<KeepAliveRequest>, Streaming<KeepAliveResponse>);

/// Why heartbeats don't go over a stream any more.
enum End {
    Status(Status),
    /// They return to the first registry.
    Home(Box<Stream>),
}

/// What comes after an answer.
enum Next {
    Due(Vec<Due>),
    Status(Status),
    Home,
}

/// Sends what is due and hears the answers, one message at a time: what comes to be due while one is on
/// its way goes out with the next.
async fn talk(
    link: &RegistryLink,
    connection: &RegistryConnection,
    line: &Line,
    mut failbacks: watch::Receiver<u64>,
) -> End {
    let (requests, outgoing) = mpsc::channel(1);
    let mut sent = line.take_due();
    // Not lost where the registry answers the stream's head only after the first request.
    requests.try_send(request(&sent)).expect("a new channel has room");
    let mut registry = RegistryClient::new(connection.transport.clone());
    let mut answers = match registry.keep_alive(ReceiverStream::new(outgoing)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return End::Status(status),
    };
    line.proceed(Phase::Open);
    let mut move_at = None;
    loop {
        match next(&mut answers).await {
            Ok(answer) => tell(sent, answer),
            Err(status) => return End::Status(status),
        }
        link.mark_connected(connection);
        let coming = async {
            loop {
                tokio::select! {
                    biased;
                    status = end(&mut answers) => return Next::Status(status),
                    due = line.next_due() => return Next::Due(due),
                    Ok(()) = failbacks.changed(), if !connection.is_primary() => {
                        move_at = Some(clock::now() + link.failback_delay(fastrand::f64()));
                    }
                    () = until(move_at) => return Next::Home,
                }
            }
        };
        sent = match coming.await {
            Next::Due(due) => due,
            Next::Status(status) => return End::Status(status),
            Next::Home => return End::Home(Box::new((requests, answers))),
        };
        // The one before was answered, so there is room unless the stream is gone.
        if requests.try_send(request(&sent)).is_err() {
            return End::Status(Status::unavailable("the stream takes no heartbeat"));
        }
    }
}

/// Waits until then; for ever where there is no such time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => clock::sleep_until(at).await,
        None => future::pending().await,
    }
}

fn request(due: &[Due]) -> KeepAliveRequest {
    KeepAliveRequest { lease_ids: due.iter().map(|due| due.lease_id).collect() }
}

/// Tells each what its heartbeat came to.
fn tell(sent: Vec<Due>, answer: KeepAliveResponse) {
    let unknown: HashSet<u64> = answer.unknown_lease_ids.into_iter().collect();
    for Due { lease_id, told } in sent {
        let renewal = if unknown.contains(&lease_id) { Renewal::Unknown } else { Renewal::Renewed };
        // Nobody waits for it who has left meanwhile.
        let _ = told.send(renewal);
    }
}

async fn next(answers: &mut Streaming<KeepAliveResponse>) -> Result<KeepAliveResponse, Status> {
    let ended = || Status::unavailable("the registry ended the stream");
    answers.message().await?.ok_or_else(ended)
}

/// Waits until the stream ends. What nobody asked for is passed over. Cancel safe.
async fn end(answers: &mut Streaming<KeepAliveResponse>) -> Status {
    loop {
        if let Err(status) = next(answers).await {
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
    fn refused() -> (Arc<Pulse>, Arc<AtomicUsize>) {
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
        (Pulse::new(RegistryLink::new(&[address], dialer, backoff, Duration::from_secs(15))), asked)
    }

    #[tokio::test]
    async fn who_fails_together_comes_back_together() {
        let (pulse, asked) = refused();
        for attempt in 1..4 {
            let mut seats: Vec<Seat> = (1..=100).map(|lease_id| pulse.join(lease_id)).collect();
            let mut randoms = Vec::new();
            for seat in &mut seats {
                let broken = seat.opened(Duration::from_secs(5)).await.unwrap_err();
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
        let line = Line::new();
        let mut answers = Vec::new();
        for lease_id in 0..LEASES_MAX as u64 + 10 {
            let (told, answer) = oneshot::channel();
            lock(&line.due).push(Due { lease_id, told });
            answers.push(answer);
        }
        // Nobody waits for the first any more.
        drop(answers.remove(0));
        let first = request(&line.take_due()).lease_ids;
        assert_eq!((first.len(), first[0]), (LEASES_MAX, 1));
        let rest = request(&line.take_due()).lease_ids;
        assert_eq!((rest.len(), rest[0]), (9, LEASES_MAX as u64 + 1));
        assert!(line.take_due().is_empty());
    }

    #[tokio::test]
    async fn each_is_told_what_its_own_heartbeat_came_to() {
        let (told, known) = oneshot::channel();
        let (other, unknown) = oneshot::channel();
        let sent = vec![Due { lease_id: 1, told }, Due { lease_id: 2, told: other }];
        tell(sent, KeepAliveResponse { unknown_lease_ids: vec![2, 7] });
        assert_eq!(known.await.unwrap(), Renewal::Renewed);
        assert_eq!(unknown.await.unwrap(), Renewal::Unknown);
    }
}
