//! A replica: a process of its own that serves health, and keeps itself registered with the client
//! crate. It runs this program, with a role from the environment.

use std::{env, path::Path, time::Duration};

use rustix::process::Signal;
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_stream::wrappers::TcpListenerStream;
use waypost_client::{Instance, Registration};

use crate::support::{ReplicaProcess, client};

/// The service that all replicas are of.
pub(crate) const SERVICE: &str = "orders";
/// The metadata entry with the life of a replica.
const LIFE: &str = "life";
/// The environment variable with a replica's terms.
const TERMS: &str = "CHAOS_REPLICA";
/// The test that is the main function of such a process.
const MAIN: &str = "chaos::replica::replica_process";

/// Names one life of one replica: each process has its own.
pub(crate) type Incarnation = u64;

/// The life of an instance.
pub(crate) fn life(instance: &Instance) -> Incarnation {
    instance.metadata[LIFE].parse().expect("a number")
}

/// The terms of a replica.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaConfig {
    pub(crate) id: usize,
    pub(crate) life: Incarnation,
    pub(crate) ttl: Duration,
    /// The default where it is none.
    pub(crate) grace: Option<Duration>,
}

/// The grace of a registration that asks for none.
const GRACE_DEFAULT: Duration = Duration::from_secs(3);

impl ReplicaConfig {
    /// The rest of its lease once its stream breaks.
    pub(crate) fn grace(&self) -> Duration {
        self.grace.unwrap_or(GRACE_DEFAULT).min(self.ttl)
    }
}

/// A running replica. Killed with this value.
pub(crate) struct Replica {
    process: ReplicaProcess,
    pub(crate) terms: ReplicaConfig,
}

impl Replica {
    pub(crate) fn start(terms: ReplicaConfig, port_file: &Path) -> Self {
        let ReplicaConfig { id, life, ttl, grace } = &terms;
        let (ttl, grace) = (ttl.as_millis(), grace.unwrap_or_default().as_millis());
        let value = format!("{id} {life} {ttl} {grace} {}", port_file.display());
        Self { process: ReplicaProcess::start(MAIN, TERMS, &value), terms }
    }

    pub(crate) fn signal(&self, number: Signal) {
        self.process.signal(number);
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
    let mut words = terms.splitn(5, ' ');
    let mut word = || words.next().expect("five words");
    let (id, life) = (word(), word());
    let mut millis = || Duration::from_millis(word().parse().expect("a number"));
    let (ttl, grace) = (millis(), millis());
    let client = client(Path::new(word())).build().expect("a client");

    // Bound before it is registered, so that callers that find it reach it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let serving = tonic::transport::Server::builder()
        .add_service(health)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let mut registration =
        Registration::new(SERVICE, "127.0.0.1", port).id(id).ttl(ttl).metadata(LIFE, life);
    if !grace.is_zero() {
        registration = registration.disconnect_grace(grace);
    }
    let registered = async {
        let _registered = client.register(registration).await.expect("registered");
        std::future::pending::<()>().await;
    };
    let mut input = tokio::io::stdin();
    let mut nothing = Vec::new();
    tokio::select! {
        served = serving => served.expect("it serves"),
        () = registered => {}
        _ended = input.read_to_end(&mut nothing) => {}
    }
}
