//! A scanner: connections that send made-up names, wild paths, odd methods, half requests and
//! garbage, read slowly, or close early. Its requests are drawn from a seed.

use std::{net::SocketAddr, sync::{Arc, atomic::{AtomicBool, AtomicU64, Ordering}}, time::Duration};

use fastrand::Rng;
use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream, task::JoinHandle, time::{sleep, timeout}};

/// The longest that one connection takes.
const CONNECTION_MAX: Duration = Duration::from_secs(15);
/// The longest wait for a response, which many of the requests do not get.
const ANSWER_MAX: Duration = Duration::from_millis(200);
/// Requests sent on one connection, at most.
const REQUESTS_MAX: u32 = 50;
/// Between two connections of one scanner: load, but room for others.
const PAUSE: Duration = Duration::from_millis(5);

const METHODS: [&str; 12] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "BREW", "TRACE", "CONNECT",
    "get", "X",
];
const PATHS: [&str; 16] = [
    "/",
    "/.env",
    "/..%2f..%2fetc/passwd",
    "/orders/../admin",
    "/orders/%2e%2e/%2e%2e/",
    "/a//b",
    "/%00",
    "/%zz",
    "/caf\u{e9}/\u{1f600}",
    "/?q=\"<script>\"",
    "//evil.example/x",
    "http://evil.example/x",
    "*",
    "evil.example:443",
    "/orders;v=1",
    "/a b",
];
const FIELDS: [&str; 10] = [
    "Host: b",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Transfer-Encoding: gzip, chunked",
    "Connection: close, x-a",
    "Upgrade: h2c\r\nConnection: upgrade",
    "Expect: 100-continue",
    "Cookie: a=b; c",
    "X-A : b",
];

/// Scanners, until they are stopped.
pub(crate) struct Scanners {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    scanners: Vec<JoinHandle<()>>,
}

impl Scanners {
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn start(target: SocketAddr, count: u64, seed: u64) -> Self {
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let scanner = |number| {
            let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
            let mut rng = Rng::with_seed(seed ^ (number << 32));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // How a connection ends is the server's choice.
                    let _ended = timeout(CONNECTION_MAX, scan(target, &mut rng)).await;
                    connections.fetch_add(1, Ordering::Relaxed);
                    sleep(PAUSE).await;
                }
            })
        };
        let scanners = (0..count).map(scanner).collect();
        Self { stop, connections, scanners }
    }

    /// Returns how many connections there were.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for scanner in self.scanners {
            scanner.await.expect("no panic");
        }
        self.connections.load(Ordering::Relaxed)
    }
}

async fn scan(target: SocketAddr, rng: &mut Rng) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    match rng.u8(..10) {
        0..5 => names(&mut stream, rng).await,
        5..8 => wild(&mut stream, rng).await,
        8 => slow(&mut stream, rng).await,
        _ => garbage(&mut stream, rng).await,
    }
}

/// Names of services that there are not, on one connection.
async fn names(stream: &mut TcpStream, rng: &mut Rng) -> std::io::Result<()> {
    for _ in 0..rng.u32(1..=REQUESTS_MAX) {
        let name = rng.u32(..);
        let head = format!("GET /x{name:x}/login HTTP/1.1\r\nHost: {name:x}.example\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        read_some(stream).await?;
    }
    Ok(())
}

/// A request of any kind, whose answer may be waited for or not.
async fn wild(stream: &mut TcpStream, rng: &mut Rng) -> std::io::Result<()> {
    let method = METHODS[rng.usize(..METHODS.len())];
    let path = PATHS[rng.usize(..PATHS.len())];
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n");
    for _ in 0..rng.usize(..4) {
        head += FIELDS[rng.usize(..FIELDS.len())];
        head += "\r\n";
    }
    if rng.u8(..20) == 0 {
        head += &format!("X-Large: {}\r\n", "x".repeat(rng.usize(..128 << 10)));
    }
    if rng.u8(..20) == 0 {
        head.extend((0..rng.usize(..300)).map(|field| format!("X-{field}: 1\r\n")));
    }
    head += "\r\nhello";
    let sent = if rng.bool() { head.len() } else { rng.usize(..head.len()) };
    stream.write_all(&head.as_bytes()[..sent]).await?;
    if rng.bool() {
        read_some(stream).await?;
    }
    Ok(())
}

/// A head or a body in small pieces, given up somewhere.
async fn slow(stream: &mut TcpStream, rng: &mut Rng) -> std::io::Result<()> {
    let request = b"POST /orders/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    for piece in request.chunks(rng.usize(1..40)).chain([&b"x"[..]; 20]) {
        stream.write_all(piece).await?;
        sleep(Duration::from_millis(rng.u64(..100))).await;
    }
    Ok(())
}

/// Bytes that are no HTTP, with or without the preface of HTTP/2.
async fn garbage(stream: &mut TcpStream, rng: &mut Rng) -> std::io::Result<()> {
    if rng.bool() {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    }
    let bytes: Vec<u8> = (0..rng.usize(1..4096)).map(|_| rng.u8(..)).collect();
    stream.write_all(&bytes).await?;
    read_some(stream).await
}

async fn read_some(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    // Many requests get no answer, as they are not whole.
    let Ok(read) = timeout(ANSWER_MAX, stream.read(&mut bytes)).await else { return Ok(()) };
    if read? == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
