//! A server that has not loaded its store: it refuses calls, with the reason.

use std::{
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat},
    process::Signal,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use waypost_client::proto::{
    DeregisterRequest, GetStatusRequest, HeartbeatRequest, ListServicesRequest, RegisterRequest,
    ResolveRequest,
};
use waypost_testing::{
    registry::{connect, instance, millis, register_request, watch_of},
    tcp::ReservedPort,
    wait::{SOON, soon},
};

use super::{Clients, READS, WRITES, is_refusal, next_health, on};

/// Locked by the server before it reads its store.
const LOCK: &str = "lock";
const SERVICES: [&str; 4] = ["carts", "orders", "stock", "users"];
const INSTANCES_EACH: usize = 1_000;
/// Registrations in flight at a time.
const AT_ONCE: usize = 250;
/// Responses that are checked before the server may continue to start.
const FIRST_ANSWERS: usize = 50;
/// From the signal to the end of the process.
const END_MAX: Duration = Duration::from_secs(5);

/// Stops a server before it reads its store: opening a pipe for writing waits for a reader.
struct Hold(PathBuf);

impl Hold {
    fn new(data: &Path) -> Self {
        let lock = data.join(LOCK);
        fs::create_dir_all(data).expect("a directory");
        if lock.exists() {
            fs::remove_file(&lock).expect("removed");
        }
        mknodat(CWD, &lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        Self(lock)
    }

    /// Lets the server continue, as long as the file is open.
    fn end(self) -> File {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags");
        OpenOptions::new().read(true).custom_flags(flags).open(self.0).expect("a pipe")
    }
}

/// Connected at the first moment that is possible.
async fn connected(address: SocketAddr) -> Clients {
    let listens = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("a server that listens", listens).await;
    Clients::over(connect(address).await)
}

/// Registers everybody, and kills the server. Returns the leases.
async fn a_full_store(data: &Path) -> Vec<u64> {
    let mut server = on(data).start().await;
    let clients = Clients::of(&server).await;
    let mut leases = Vec::new();
    for service in SERVICES {
        for first in (0..INSTANCES_EACH).step_by(AT_ONCE) {
            let asked = (first..first + AT_ONCE).map(|number| {
                let instance = instance(service, &format!("{number}"));
                let ttl = Some(millis(300_000));
                let request = RegisterRequest { ttl, ..register_request(instance) };
                let mut registry = clients.registry.clone();
                async move { registry.register(request).await.expect("taken").get_ref().lease_id }
            });
            leases.extend(soon("registrations", join_all(asked)).await);
        }
    }
    server.kill().await;
    leases
}

/// The number of instances of a service.
async fn count(clients: &mut Clients, service: &str) -> Result<usize, Status> {
    let service = service.to_owned();
    let request = ResolveRequest { service, ..ResolveRequest::default() };
    Ok(soon("an answer", clients.discovery.resolve(request)).await?.get_ref().instances.len())
}

/// The response of every method while the server starts.
async fn everything_is_refused(clients: &Clients) {
    let Clients { mut registry, mut discovery, mut admin, .. } = clients.clone();
    let request = register_request(instance("orders", "refused"));
    let refusals = [
        registry.register(request).await.map(drop),
        registry.deregister(DeregisterRequest::default()).await.map(drop),
        registry.heartbeat(HeartbeatRequest { lease_ids: vec![1] }).await.map(drop),
        registry.keep_alive(tokio_stream::pending()).await.map(drop),
        discovery.list_services(ListServicesRequest::default()).await.map(drop),
        discovery.watch(watch_of(&[])).await.map(drop),
        admin.get_status(GetStatusRequest {}).await.map(drop),
    ];
    for refusal in refusals {
        let refusal = refusal.expect_err("it starts");
        assert!(is_refusal(&refusal, Code::Unavailable), "{refusal:?}");
    }
}

#[tokio::test]
async fn starting_server_refuses_calls_until_its_store_is_loaded() {
    let place = TempDir::new().expect("a directory");
    let leases = a_full_store(place.path()).await;
    let hold = Hold::new(place.path());
    let port = ReservedPort::new();
    let mut server = on(place.path()).listen(port.address()).launch();
    let mut clients = connected(port.address()).await;
    let mut health = Vec::new();
    for service in READS.into_iter().chain([WRITES]) {
        health.push(clients.watch_health(service, ServingStatus::NotServing).await);
    }
    everything_is_refused(&clients).await;

    let (mut hold, mut released) = (Some(hold), None);
    let (mut answers, given_up) = (0, Instant::now() + SOON);
    let found = loop {
        match count(&mut clients, SERVICES[answers % SERVICES.len()]).await {
            Ok(found) => break found,
            Err(refusal) => assert!(is_refusal(&refusal, Code::Unavailable), "{refusal:?}"),
        }
        answers += 1;
        if answers == FIRST_ANSWERS {
            released = hold.take().map(Hold::end);
        }
        assert!(Instant::now() < given_up, "it does not serve");
    };
    assert!(released.is_some(), "it served before it knew anybody");
    assert_eq!(found, INSTANCES_EACH, "the first answer is whole");
    for service in SERVICES {
        assert_eq!(count(&mut clients, service).await.expect("it serves"), INSTANCES_EACH);
    }
    for health in &mut health {
        assert_eq!(next_health(health).await, ServingStatus::Serving);
    }
    let request = HeartbeatRequest { lease_ids: leases };
    let answer = clients.registry.heartbeat(request).await.expect("it serves").into_inner();
    assert!(answer.unknown_lease_ids.is_empty(), "{:?}", answer.unknown_lease_ids);
    server.signal(Signal::TERM);
    assert_eq!(server.end().await.code(), Some(0));
}

#[tokio::test]
async fn starting_server_shuts_down_in_order() {
    let place = TempDir::new().expect("a directory");
    let _hold = Hold::new(place.path());
    let port = ReservedPort::new();
    let mut server = on(place.path()).listen(port.address()).launch();
    let clients = connected(port.address()).await;
    let mut health = clients.watch_health("", ServingStatus::NotServing).await;
    everything_is_refused(&clients).await;
    server.signal(Signal::TERM);
    let begun = Instant::now();
    let end = async { while health.message().await.is_ok_and(|message| message.is_some()) {} };
    soon("the end of the stream", end).await;
    assert_eq!(server.end().await.code(), Some(0));
    assert!(begun.elapsed() < END_MAX, "it took {:?}", begun.elapsed());
}
