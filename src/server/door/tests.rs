//! The door over streams in memory: first bytes, handshakes, and strangers in time.

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time,
};
use tokio_rustls::rustls::pki_types::ServerName;
use waypost_auth::{
    policy::Policy,
    tls::{ClientAuth, IdentityFolder},
};
use waypost_testing::{authority::TestAuthority, seed::seed};

use crate::{
    auth::{TlsContext, TrustCell},
    clock::Clock,
    model::WallTime,
};

use super::{Door, DoorError, End, KnownBy, Opened, Stranger};

const SERVER: &str = "registry.test";
const CALLER: &str = "spiffe://test/orders";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn context(authority: &TestAuthority, client_auth: ClientAuth) -> TlsContext {
    let directory = authority.folder(SERVER);
    let now = UNIX_EPOCH + Duration::from_millis(Clock::start().wall().0);
    TlsContext::new(&IdentityFolder::read(directory.path(), now).unwrap(), client_auth)
}

fn no_rules() -> Policy {
    Policy::parse("", Path::new("")).unwrap()
}

fn door_with(context: Option<TlsContext>, known_by: KnownBy) -> Door {
    let trust = context.map(|tls| Arc::new(TrustCell::new(no_rules(), Some(tls), WallTime(0))));
    Door::new(trust, known_by, 4)
}

fn clear_text_door() -> Door {
    door_with(None, KnownBy::Opening)
}

fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 0, 0, last]))
}

/// Opens one side of a stream in memory; the other side has sent `bytes` and waits.
async fn open(
    door: &Door,
    bytes: &[u8],
) -> (Result<Opened<DuplexStream>, DoorError>, DuplexStream) {
    let (near, mut far) = duplex(64 * 1024);
    far.write_all(bytes).await.unwrap();
    let stranger = door.arrive(None);
    (door.open(near, &stranger).await, far)
}

#[tokio::test]
async fn clear_text_on_a_port_with_tls_is_refused_in_its_own_protocol() {
    let authority = TestAuthority::new("a");
    let door = door_with(Some(context(&authority, ClientAuth::Requested)), KnownBy::Gate);
    for (bytes, begins, read_at_most) in [
        (PREFACE, &b"\0\0\0\x04\0\0\0\0\0\0\0\x21\x07"[..], 4),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", 1),
        (b"POST / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", 2),
        (b"PROPFIND / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", 3),
        (b"\x15\x03\x01\0\x02\x02\x28", b"HTTP/1.1 400 Bad Request\r\n", 1),
        (b"\0", b"HTTP/1.1 400 Bad Request\r\n", 1),
    ] {
        let (near, mut far) = duplex(1024);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let (near, counter) = CountedReads::new(near);
        let stranger = door.arrive(None);
        let opened = door.open(near, &stranger).await;
        assert!(matches!(opened, Err(DoorError::ClearText)), "{bytes:?}");
        assert!(counter.count() <= read_at_most, "{bytes:?}: {} bytes", counter.count());
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(begins), "{bytes:?}: {answer:?}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("this port speaks TLS only"), "{text}");
    }
}

#[tokio::test]
async fn tls_on_a_port_with_clear_text_ends_the_connection() {
    let (opened, _far) = open(&clear_text_door(), b"\x16\x03\x01\x02\0\x01").await;
    let mut stream = opened.unwrap().stream;
    let error = stream.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("clear text only"), "{error}");
}

#[tokio::test]
async fn clear_text_passes_unchanged() {
    let mut random = fastrand::Rng::with_seed(seed());
    for _ in 0..200 {
        let mut sent: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..)).collect();
        sent.insert(0, random.u8(0x17..));
        let door = clear_text_door();
        let (near, mut far) = duplex(1024);
        far.write_all(&sent).await.unwrap();
        let stranger = door.arrive(None);
        let mut stream = door.open(near, &stranger).await.unwrap().stream;
        let mut received: Vec<u8> = Vec::new();
        while received.len() < sent.len() {
            let mut part = vec![0; random.usize(1..50)];
            let count = stream.read(&mut part).await.unwrap();
            received.extend(&part[..count]);
        }
        assert_eq!(received, sent);
        let count = door.strangers.count();
        assert_eq!(count, usize::from(sent.len() < 33), "known by its opening bytes");
        stream.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        far.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
    }
}

#[tokio::test]
async fn stranger_may_send_128_kib() {
    for (known, visiting, passes) in
        [(false, false, false), (true, false, true), (false, true, true)]
    {
        let door = door_with(None, KnownBy::Gate);
        let (near, mut far) = duplex(256 * 1024);
        far.write_all(&[b'a'; 128 * 1024 + 1]).await.unwrap();
        let stranger = door.arrive(None);
        let mut stream = door.open(near, &stranger).await.unwrap().stream;
        let mut bytes = vec![0; 128 * 1024];
        stream.read_exact(&mut bytes).await.unwrap();
        if known {
            stranger.acquaintance().known();
        }
        let _visit = visiting.then(|| stranger.acquaintance().visit());
        assert_eq!(stream.read_u8().await.is_ok(), passes, "{known} {visiting}");
    }
}

/// Makes both sides of a handshake. Returns the server's and the result of the caller's.
async fn shake_hands(
    door: &Door,
    connector: &tokio_rustls::TlsConnector,
) -> Result<(Opened<DuplexStream>, tokio_rustls::client::TlsStream<DuplexStream>), DoorError> {
    let (near, far) = duplex(64 * 1024);
    let stranger = door.arrive(None);
    let name = ServerName::try_from(SERVER).unwrap();
    let both = tokio::join!(door.open(near, &stranger), connector.connect(name, far));
    Ok((both.0?, both.1.expect("the server's side succeeded")))
}

#[tokio::test]
async fn handshake_gives_the_certificate_of_the_caller() {
    let authority = TestAuthority::new("a");
    let identity = authority.issue(CALLER);
    let door = door_with(Some(context(&authority, ClientAuth::Demanded)), KnownBy::Gate);
    let (mut opened, mut caller) =
        shake_hands(&door, &authority.connector(Some(&identity))).await.unwrap();
    let certificate = opened.certificate.unwrap();
    assert_eq!(certificate.principal().unwrap().as_str(), CALLER);
    assert_eq!(caller.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    caller.write_all(PREFACE).await.unwrap();
    let mut received = vec![0; PREFACE.len()];
    opened.stream.read_exact(&mut received).await.unwrap();
    assert_eq!(received, PREFACE);
    opened.stream.write_all(b"answer").await.unwrap();
    opened.stream.flush().await.unwrap();
    let mut answer = [0; 6];
    caller.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
}

#[tokio::test]
async fn caller_without_a_certificate_passes_only_where_none_is_demanded() {
    let authority = TestAuthority::new("a");
    let connector = authority.connector(None);
    let door = door_with(Some(context(&authority, ClientAuth::Requested)), KnownBy::Gate);
    let (opened, _caller) = shake_hands(&door, &connector).await.unwrap();
    assert!(opened.certificate.is_none());
    let door = door_with(Some(context(&authority, ClientAuth::Demanded)), KnownBy::Gate);
    let refused = shake_hands(&door, &connector).await;
    assert!(matches!(refused, Err(DoorError::Handshake(_))));
}

#[tokio::test]
async fn new_connections_use_new_credentials_at_once() {
    let (old, new) = (TestAuthority::new("old"), TestAuthority::new("new"));
    let door = door_with(Some(context(&old, ClientAuth::Demanded)), KnownBy::Gate);
    let (old_caller, new_caller) = (old.issue(CALLER), new.issue(CALLER));
    let of_old = old.connector(Some(&old_caller));
    let of_new = new.connector(Some(&new_caller));
    shake_hands(&door, &of_old).await.unwrap();
    let trust = door.trust.as_ref().unwrap();
    trust.replace(no_rules(), Some(context(&new, ClientAuth::Demanded)), WallTime(1));
    shake_hands(&door, &of_new).await.unwrap();
    let (near, far) = duplex(64 * 1024);
    let stranger = door.arrive(None);
    let name = ServerName::try_from(SERVER).unwrap();
    let both = tokio::join!(door.open(near, &stranger), of_old.connect(name, far));
    assert!(both.0.is_err() && both.1.is_err());
}

#[tokio::test(start_paused = true)]
async fn handshake_that_stalls_ends_after_5_seconds() {
    let authority = TestAuthority::new("a");
    let door = door_with(Some(context(&authority, ClientAuth::Requested)), KnownBy::Gate);
    for bytes in [&b""[..], b"P", b"PRI", b"\x16", b"\x16\x03\x01\x40\0\x01\0\x3f\xfc\x03\x03"] {
        let clock = Clock::start();
        let (opened, far) = open(&door, bytes).await;
        assert!(matches!(opened, Err(DoorError::Timeout)), "{bytes:?}");
        assert_eq!(clock.tick().0 / 1000, 5, "{bytes:?}");
        drop(far);
    }
}

#[tokio::test]
async fn random_first_bytes_never_panic() {
    let authority = TestAuthority::new("a");
    let door = door_with(Some(context(&authority, ClientAuth::Requested)), KnownBy::Gate);
    let mut random = fastrand::Rng::with_seed(seed());
    for _ in 0..2_000 {
        let mut bytes: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
        if random.bool() {
            bytes.splice(..0, [0x16, 3, random.u8(..4)]);
        }
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(&bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let stranger = door.arrive(None);
        assert!(door.open(near, &stranger).await.is_err(), "{bytes:?}");
    }
}

/// Waits for the end of a connection, at most for a minute; returns the seconds it took.
async fn end_of(stranger: &Stranger) -> (Option<End>, u64) {
    let clock = Clock::start();
    let end = time::timeout(Duration::from_secs(60), stranger.closing()).await.ok();
    (end, clock.tick().0 / 1000)
}

#[tokio::test(start_paused = true)]
async fn stranger_ends_after_10_seconds_and_a_known_caller_never() {
    let door = door_with(None, KnownBy::Gate);
    let (stranger, known) = (door.arrive(address(1)), door.arrive(address(1)));
    known.acquaintance().opened();
    assert_eq!(door.strangers.count(), 2, "opening bytes make no caller known at a gate");
    known.acquaintance().known();
    assert_eq!(door.strangers.count(), 1);
    assert_eq!(end_of(&known).await, (None, 60));
    assert_eq!(end_of(&stranger).await, (Some(End::Overdue), 10));
    drop(stranger);
    assert_eq!(door.strangers.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn stranger_becomes_known_while_its_connection_waits() {
    let door = door_with(None, KnownBy::Gate);
    let stranger = door.arrive(None);
    let mut closing = stranger.closing();
    assert!(time::timeout(Duration::from_secs(9), &mut closing).await.is_err());
    stranger.acquaintance().known();
    assert!(time::timeout(Duration::from_secs(60), &mut closing).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn guest_ends_10_seconds_after_its_last_call() {
    let door = door_with(None, KnownBy::Gate);
    let guest = door.arrive(None);
    let mut closing = guest.closing();
    assert!(time::timeout(Duration::from_secs(9), &mut closing).await.is_err());
    let visit = guest.acquaintance().visit();
    assert_eq!(door.strangers.count(), 0);
    assert!(time::timeout(Duration::from_secs(100), &mut closing).await.is_err());
    // One that ends between two looks at it counts, too.
    drop(guest.acquaintance().visit());
    drop(visit);
    assert!(time::timeout(Duration::from_secs(9), &mut closing).await.is_err());
    drop(guest.acquaintance().visit());
    assert!(time::timeout(Duration::from_secs(9), &mut closing).await.is_err());
    let clock = Clock::start();
    assert_eq!(closing.await, End::Overdue);
    assert_eq!(clock.tick().0 / 1000, 1);
}

#[tokio::test(start_paused = true)]
async fn oldest_stranger_makes_room_and_known_callers_do_not() {
    let door = door_with(None, KnownBy::Gate);
    let known: Vec<_> = (0..10).map(|_| door.arrive(address(1))).collect();
    assert_eq!(end_of(&known[0]).await, (Some(End::Evicted), 0));
    assert_eq!(door.strangers.count(), 4);
    known.iter().for_each(|stranger| stranger.acquaintance().known());
    assert_eq!(door.strangers.count(), 0, "those that were evicted stay so");
    let honest = door.arrive(address(2));
    let flood: Vec<_> = (0..10).map(|_| door.arrive(address(3))).collect();
    assert_eq!(end_of(&known[9]).await, (None, 60));
    assert_eq!(end_of(&flood[6]).await, (Some(End::Evicted), 0));
    assert_eq!(end_of(&flood[7]).await, (Some(End::Overdue), 10));
    assert_eq!(end_of(&honest).await, (Some(End::Overdue), 10));
}

#[tokio::test(start_paused = true)]
async fn five_refused_credentials_end_even_a_known_caller() {
    let door = door_with(None, KnownBy::Gate);
    let caller = door.arrive(None);
    let acquaintance = caller.acquaintance();
    for _ in 0..3 {
        (0..4).for_each(|_| acquaintance.refused());
        acquaintance.known();
    }
    assert_eq!(end_of(&caller).await, (None, 60));
    (0..5).for_each(|_| acquaintance.refused());
    assert_eq!(end_of(&caller).await, (Some(End::Refused), 0));
}

/// A stream that counts the bytes that are read.
struct CountedReads {
    stream: DuplexStream,
    counter: Arc<std::sync::atomic::AtomicUsize>,
}

struct Counter(Arc<std::sync::atomic::AtomicUsize>);

impl Counter {
    fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl CountedReads {
    fn new(stream: DuplexStream) -> (Self, Counter) {
        let counter = Arc::default();
        (Self { stream, counter: Arc::clone(&counter) }, Counter(counter))
    }
}

impl tokio::io::AsyncRead for CountedReads {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = std::pin::Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        self.counter.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        read
    }
}

impl tokio::io::AsyncWrite for CountedReads {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
