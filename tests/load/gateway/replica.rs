//! A replica: a process of its own that serves HTTP and keeps itself registered. It runs this
//! program, with a role from the environment.

use std::{
    convert::Infallible,
    env,
    path::Path,
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use waypost_client::{InFlight, Registration};

use crate::support::{ReplicaProcess, client};

/// The service that all replicas are of.
pub(crate) const SERVICE: &str = "orders";
/// The environment variable with a replica's terms: its id, and the file with the registry's
/// address.
const TERMS: &str = "GATEWAY_REPLICA";
/// The test that is the main function of such a process.
const MAIN: &str = "gateway::replica::replica_process";
/// The time of a draining replica to finish its requests.
const LEAVING: Duration = Duration::from_secs(5);
/// The longest work of a request.
const WORK_MAX_MS: u64 = 20;

/// A running replica. Killed with this value.
pub(crate) struct Replica {
    process: ReplicaProcess,
    pub(crate) id: String,
}

impl Replica {
    pub(crate) fn start(id: String, registry: &Path) -> Self {
        let value = format!("{id} {}", registry.display());
        Self { process: ReplicaProcess::start(MAIN, TERMS, &value), id }
    }

    /// Kills it with SIGKILL. Returns the time of the signal.
    pub(crate) fn kill(self) -> Instant {
        let now = Instant::now();
        drop(self.process);
        now
    }

    /// Sends SIGTERM and waits until it has ended. Blocks.
    pub(crate) fn leave(self) {
        self.process.terminate();
    }
}

/// In a process that is to be a replica, this is all that it does.
#[test]
fn replica_process() {
    let Ok(terms) = env::var(TERMS) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(serve(&terms));
}

async fn serve(terms: &str) {
    let (id, registry) = terms.split_once(' ').expect("two words");
    let id: &'static str = id.to_owned().leak();
    let client = client(Path::new(registry)).build().expect("a client");
    // Bound before it is registered, so that callers that find it reach it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let in_flight = InFlight::new();
    let calls = in_flight.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let calls = calls.clone();
            let answer = service_fn(move |_: Request<_>| {
                let call = calls.begin();
                async move {
                    let work = Duration::from_millis(fastrand::u64(..=WORK_MAX_MS));
                    tokio::time::sleep(work).await;
                    drop(call);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(id.as_bytes()))))
                }
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            // Connections end as they like.
            tokio::spawn(async move { drop(serving.await) });
        }
    });
    let registration = Registration::new(SERVICE, "127.0.0.1", port).id(id);
    let registered = client.register(registration).await.expect("registered");
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    let mut input = tokio::io::stdin();
    let mut nothing = Vec::new();
    tokio::select! {
        _asked = terminate.recv() => {
            registered.drain_calls(&in_flight, LEAVING).await;
            // The last responses are still being sent.
            tokio::time::sleep(Duration::from_millis(50)).await;
            // A thread of the runtime still waits for input.
            std::process::exit(0);
        }
        _ended = input.read_to_end(&mut nothing) => {}
    }
}
