//! A disk that fails, in so far as its user sees: the process may no longer write to files.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;
use tonic::Code;
use waypost_testing::{process::RegistryProcess, registry::resolve_all};

use super::{Clients, on, outage::Outage};

/// Sets how large the files are that a server may write; `None`: as large as there is room.
fn limit_files(server: &RegistryProcess, bytes: Option<u64>) {
    let id = i32::try_from(server.id()).expect("it fits");
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(Pid::from_raw(id), Resource::Fsize, limit).expect("it may be limited");
}

#[tokio::test]
async fn failing_disk_refuses_writes_until_it_works() {
    let directory = TempDir::new().expect("a directory");
    let mut server = on(directory.path()).start().await;
    let mut outage = Outage::before(&server, Code::Unavailable).await;
    limit_files(&server, Some(0));
    outage.begin().await;
    outage.lasts(&mut server).await;
    limit_files(&server, None);
    let cursor = outage.end(&mut server).await;

    server.kill().await;
    let server = on(directory.path()).start().await;
    let mut clients = Clients::of(&server).await;
    let orders = resolve_all(&mut clients.discovery, "orders").await;
    assert_eq!((orders.instances.len(), orders.cursor), (4, Some(cursor)));
}
