//! A scanner, as every open port meets it: other protocols, half requests, made-up names.
//!
//! Its choices are drawn from a seed.

mod grpc;
mod http1;
mod http2;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Longest time on one connection.
const CONNECTION_MAX: Duration = Duration::from_secs(15);
/// Longest wait for a response: many of the requests get none.
const RESPONSE_MAX: Duration = Duration::from_millis(200);
/// Between two connections of one scanner: leaves room for other load.
const PAUSE: Duration = Duration::from_millis(5);

/// The service behind the scanned port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A server of HTTP, such as the gateway.
    Http,
    /// The registry, which also gets gRPC.
    Registry,
}

/// Scanners that run until they are stopped.
#[derive(Debug)]
pub struct Scanners {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Scanners {
    /// Starts `count` scanners of an address, each with a seed of its own.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(target: Target, address: SocketAddr, count: u64, seed: u64) -> Self {
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let scanner = |number: u64| {
            let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
            let mut rng = Rng::with_seed(seed ^ (number << 32));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // The server may close the connection in any way.
                    let _closed = timeout(CONNECTION_MAX, scan(target, address, &mut rng)).await;
                    connections.fetch_add(1, Ordering::Relaxed);
                    sleep(PAUSE).await;
                }
            })
        };
        let tasks = (0..count).map(scanner).collect();
        Self { stop, connections, tasks }
    }

    /// Stops the scanners and returns how many connections they made.
    ///
    /// # Panics
    /// If a scanner panicked, which it does at a response that no scanner may get.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no scanner panics");
        }
        self.connections.load(Ordering::Relaxed)
    }
}

async fn scan(target: Target, address: SocketAddr, rng: &mut Rng) -> io::Result<()> {
    match target {
        Target::Http => match rng.u8(..10) {
            0..5 => http1::unknown_names(address, rng).await,
            5..8 => http1::wild(address, rng).await,
            8 => http1::slow(address, rng).await,
            _ => http2::garbage(address, rng).await,
        },
        Target::Registry => match rng.u8(..9) {
            0 => http1::wild(address, rng).await,
            1 => http1::slow(address, rng).await,
            2 => http2::abandoned_calls(address, rng).await,
            3 => http2::frames(address, rng).await,
            4 => http2::garbage(address, rng).await,
            5 => grpc::unknown_methods(address, rng).await,
            6 => grpc::broken_messages(address, rng).await,
            7 => grpc::unknown_names(address, rng).await,
            _ => grpc::abandoned_watches(address, rng).await,
        },
    }
}

/// Returns a name that nothing has.
fn unknown_name(rng: &mut Rng) -> String {
    let length = rng.usize(8..120);
    std::iter::repeat_with(|| rng.alphanumeric()).take(length).collect()
}

fn bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// Writes, then reads until the server closes the connection or is silent.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let _closed = timeout(RESPONSE_MAX, stream.write_all(bytes)).await;
    let mut response = Vec::new();
    let _silent = timeout(RESPONSE_MAX, stream.read_to_end(&mut response)).await;
    Ok(())
}

/// Reads something of a response, if there is one.
async fn read_some(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let Ok(read) = timeout(RESPONSE_MAX, stream.read(&mut bytes)).await else { return Ok(()) };
    if read? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
