//! Watchers that never read, in every way in which a peer can: each costs the server bounded memory
//! and delays no other watcher.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Request;
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{interval, sleep},
};
use tonic::transport::Channel;
use waypost_client::proto::{
    Change, GetStatusRequest, Instance, UpdateRequest, admin_client::AdminClient,
    discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::{
    http2::{RawBody, framed, full},
    process::RegistryProcess,
    registry::{connect, instance, register, watch_of},
    wait::soon,
    watch::Follower,
};

use crate::support::{alone, serve};

const READERS: usize = 20;
const CHANGES: usize = 2_000;
/// Changes without stuck watchers: the speed of readers on this machine at this time.
const CONTROL_CHANGES: usize = 500;
const CHANGE_INTERVAL: Duration = Duration::from_millis(2);
const INSTANCES: usize = 20;
const METADATA_BYTES: usize = 1024;

const MEMORY_MAX: u64 = 50 * 1024 * 1024;
const DELAY_MAX: Duration = Duration::from_millis(20);

/// The way in which watchers are stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    /// Watchers that read their connections, but never return the windows of their streams.
    KeepingWindows,
    /// The same, all on one connection.
    KeepingWindowsTogether,
    /// Watchers with the widest windows that read nothing from their sockets.
    Deaf,
    /// The same, all on one connection.
    DeafTogether,
}

impl Stuck {
    /// The number of each: those of the last way could cost the most.
    const ALL: [(Self, usize); 4] = [
        (Self::KeepingWindows, 40),
        (Self::KeepingWindowsTogether, 30),
        (Self::Deaf, 30),
        (Self::DeafTogether, 100),
    ];

    fn is_deaf(self) -> bool {
        matches!(self, Self::Deaf | Self::DeafTogether)
    }

    fn window(self) -> u32 {
        if self.is_deaf() { (1 << 31) - 1 } else { 64 * 1024 }
    }

    /// Watchers that stay so for as long as what is returned is held.
    async fn watch(
        self,
        server: &RegistryProcess,
        count: usize,
    ) -> Vec<(StuckConnection, Incoming)> {
        let together = matches!(self, Self::KeepingWindowsTogether | Self::DeafTogether);
        let mut connection = StuckConnection::open(server, self.window()).await;
        let mut watchers = Vec::new();
        for _ in 0..count {
            if !together {
                connection = StuckConnection::open(server, self.window()).await;
            }
            let watch = connection.watch(server).await;
            watchers.push((connection.clone(), watch));
        }
        for (connection, _) in &watchers {
            connection.deaf.store(self.is_deaf(), Ordering::Relaxed);
        }
        watchers
    }
}

/// A connection that stops reading on demand.
struct Ear {
    stream: TcpStream,
    deaf: Arc<AtomicBool>,
}

impl AsyncRead for Ear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.deaf.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Ear {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A connection whose responses stay unread.
#[derive(Clone)]
struct StuckConnection {
    requests: SendRequest<RawBody>,
    deaf: Arc<AtomicBool>,
}

impl StuckConnection {
    async fn open(server: &RegistryProcess, window: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // So that what is not read stays with the server.
        socket.set_recv_buffer_size(4 * 1024).expect("a small buffer");
        let stream =
            soon("a connection", socket.connect(server.address())).await.expect("connected");
        let deaf = Arc::new(AtomicBool::new(false));
        let ear = Ear { stream, deaf: Arc::clone(&deaf) };
        let handshake = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .handshake(TokioIo::new(ear));
        let (requests, connection) = soon("a handshake", handshake).await.expect("HTTP/2");
        tokio::spawn(async move {
            let _ended = connection.await;
        });
        Self { requests, deaf }
    }

    /// A watch whose response is not read.
    async fn watch(&mut self, server: &RegistryProcess) -> Incoming {
        let request =
            Request::post(format!("http://{}/waypost.v1.Discovery/Watch", server.address()))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(full(framed(&watch_of(&["busy"]).encode_to_vec())))
                .expect("a request");
        soon("room for a watch", self.requests.ready()).await.expect("the connection lives");
        let answer = soon("a watch", self.requests.send_request(request)).await;
        answer.expect("the watch opens").into_body()
    }
}

/// The time at which each change was sent, by its number.
type Sent = Arc<[OnceLock<Instant>]>;

fn metadata(number: usize) -> BTreeMap<String, String> {
    let padding = "x".repeat(METADATA_BYTES);
    BTreeMap::from([("number".to_owned(), number.to_string()), ("padding".to_owned(), padding)])
}

fn number(change: &Change) -> usize {
    let instance = change.instance.as_ref().expect("an instance");
    instance.metadata["number"].parse().expect("a number")
}

/// Reads as fast as it can until the last change: how long each took.
async fn read(mut follower: Follower, sent: Sent) -> (Follower, Vec<Duration>) {
    let mut delays = Vec::new();
    while delays.len() < sent.len() {
        let seen = follower.changes.len();
        follower.message().await;
        let now = Instant::now();
        for change in &follower.changes[seen..] {
            assert_eq!(number(change), delays.len(), "every change, in order");
            delays.push(now - *sent[number(change)].get().expect("it was sent"));
        }
    }
    follower.changes.clear();
    (follower, delays)
}

/// Makes changes at a steady pace; the delays of all readers together, the shortest first.
async fn measure(
    registry: &mut RegistryClient<Channel>,
    leases: &[u64],
    readers: &mut Vec<Follower>,
    changes: usize,
) -> Vec<Duration> {
    let sent: Sent = (0..changes).map(|_| OnceLock::new()).collect();
    let mut reading = JoinSet::new();
    for follower in readers.drain(..) {
        reading.spawn(read(follower, Arc::clone(&sent)));
    }
    let mut pace = interval(CHANGE_INTERVAL);
    for number in 0..changes {
        pace.tick().await;
        let request = UpdateRequest {
            lease_id: leases[number % leases.len()],
            instance: Some(Instance { metadata: metadata(number), ..Instance::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["metadata".to_owned()] }),
            ..UpdateRequest::default()
        };
        sent[number].set(Instant::now()).expect("sent once");
        registry.update(request).await.expect("updated");
    }
    let mut delays = Vec::new();
    for (follower, own) in reading.join_all().await {
        readers.push(follower);
        delays.extend(own);
    }
    delays.sort_unstable();
    delays
}

fn shown(delays: &[Duration]) -> String {
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    format!("p50 {:?}, p99 {:?}, at most {:?}", at(50), at(99), at(100))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stuck_watchers_cost_bounded_memory_and_delay_no_reader() {
    let _alone = alone().await;
    let server = serve().start().await;
    let mut registry = RegistryClient::new(connect(server.address()).await);
    let mut leases = Vec::new();
    for id in 0..INSTANCES {
        let made = Instance { metadata: metadata(usize::MAX), ..instance("busy", &id.to_string()) };
        leases.push(register(&mut registry, made).await.lease_id);
    }
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut discovery = DiscoveryClient::new(connect(server.address()).await);
        readers.push(Follower::ready(&mut discovery, watch_of(&["busy"])).await);
    }
    let control = measure(&mut registry, &leases, &mut readers, CONTROL_CHANGES).await;

    let before = server.memory_bytes();
    let mut watchers = Vec::new();
    for (way, count) in Stuck::ALL {
        watchers.extend(way.watch(&server, count).await);
    }
    let opened = server.memory_bytes();
    let delays = measure(&mut registry, &leases, &mut readers, CHANGES).await;
    // What is written to the stuck ones may still be under way.
    sleep(CHANGE_INTERVAL * 100).await;
    let after = server.memory_bytes();

    let mib = |bytes: u64| bytes / 1024 / 1024;
    eprintln!("only readers: {}", shown(&control));
    eprintln!("beside {} that never read: {}", watchers.len(), shown(&delays));
    eprintln!(
        "memory {} MiB before, {} MiB with the watches open, {} MiB after",
        mib(before),
        mib(opened),
        mib(after)
    );
    assert_eq!(delays.len(), READERS * CHANGES);
    // The deaf ones do not see the pings, and are disconnected in the end.
    let hearing = Stuck::ALL.iter().filter(|(way, _)| !way.is_deaf()).map(|(_, count)| count);
    let mut admin = AdminClient::new(connect(server.address()).await);
    let status = admin.get_status(GetStatusRequest {}).await.expect("a status").into_inner();
    let open = usize::try_from(status.watchers).expect("few");
    assert!(open >= READERS + hearing.sum::<usize>(), "{open} watches are open");
    assert!(after.saturating_sub(before) < MEMORY_MAX, "{} MiB more", mib(after - before));
    // What a machine that is busy otherwise does to every reader is in the control as well.
    let (median, usual) = (delays[delays.len() / 2], control[control.len() / 2]);
    assert!(median < DELAY_MAX + 3 * usual, "{median:?}, without anybody stuck {usual:?}");
}
