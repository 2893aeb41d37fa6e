//! A scanner at the registry's port beside valid callers: none of their requests fails, and those
//! of the scanner leave no state.
//!
//! ```sh
//! WAYPOST_SOAK_SECONDS=600 cargo test --test load soak -- --nocapture
//! ```
//! `WAYPOST_SEED` repeats the scanner's choices.

mod callers;

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use waypost_client::proto::{
    GetStatusRequest, GetStatusResponse, ListServicesRequest, admin_client::AdminClient,
    discovery_client::DiscoveryClient,
};
use waypost_testing::{
    process::{RegistryProcess, usage::open_files},
    registry::connect,
    scanner::{Scanners, Target},
    seed::{from_environment, seed},
    wait::soon,
};

use crate::support::{alone, serve};

const CALLERS: usize = 20;
const SCANNERS: u64 = 16;
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A log that is full before the memory is compared.
const CONFIG: &str = "[limits]\nlog_changes_max = 500\n";
/// The growth of a server's memory after the first part of a soak: allocators keep some.
const GROWTH_MAX: u64 = 8 * 1024 * 1024;
/// Files that the runtime of a server may open later.
const FILES_MORE: usize = 8;

/// The state that all tasks of a soak share.
struct Soak {
    address: SocketAddr,
    is_over: AtomicBool,
    good: AtomicU64,
}

impl Soak {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

async fn status(address: SocketAddr) -> GetStatusResponse {
    let mut admin = AdminClient::new(connect(address).await);
    let status = soon("a status", admin.get_status(GetStatusRequest {})).await;
    status.expect("a status").into_inner()
}

/// The largest amount of memory that the server has until then.
async fn largest_until(server: &RegistryProcess, until: Instant) -> u64 {
    let mut largest = server.memory_bytes();
    while Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        largest = largest.max(server.memory_bytes());
    }
    largest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scanner_fails_no_valid_request_and_leaves_no_state() {
    let _alone = alone().await;
    let seconds = from_environment("WAYPOST_SOAK_SECONDS").unwrap_or(9);
    let time = Duration::from_secs(seconds);
    let seed = seed();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("waypost.toml");
    fs::write(&config, CONFIG).expect("a configuration");
    let server = serve().arguments([OsString::from("--config"), config.into()]).start().await;
    let files = open_files(&server.id().to_string());
    let (is_over, good) = (AtomicBool::new(false), AtomicU64::new(0));
    let soak = Arc::new(Soak { address: server.address(), is_over, good });
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        tasks.spawn(callers::call(Arc::clone(&soak), number));
    }
    let scanners = Scanners::start(Target::Registry, server.address(), SCANNERS, seed);

    let began = Instant::now();
    // What is kept for reuse is there by then.
    let warm = began + (time / 3).min(Duration::from_secs(60));
    let half = warm + (began + time - warm) / 2;
    let first = largest_until(&server, warm).await;
    let before = largest_until(&server, half).await;
    let after = largest_until(&server, began + time).await;
    soak.is_over.store(true, Ordering::Relaxed);
    let scans = scanners.stop().await;
    while let Some(ended) = soon("the end of a task", tasks.join_next()).await {
        ended.expect("no good request fails");
    }

    let mib = |bytes: u64| bytes / 1024 / 1024;
    let good = soak.good.load(Ordering::Relaxed);
    let memory = format!("{} MiB, {} MiB, {} MiB", mib(first), mib(before), mib(after));
    eprintln!("{good} good requests beside {scans} scans in {seconds} s; memory: {memory}");
    assert!(good > 100 && scans > 100, "{good} good requests, {scans} scans");
    assert!(after <= before + GROWTH_MAX, "it grows: {memory}");
    left_clean(&server, files).await;
}

/// Checks that nothing is left of what the scanner named, opened and half closed.
async fn left_clean(server: &RegistryProcess, files: usize) {
    let given_up = Instant::now() + Duration::from_secs(30);
    loop {
        let now = status(server.address()).await;
        let open = open_files(&server.id().to_string());
        let clean = (now.services, now.instances, now.watchers, now.leases) == (0, 0, 0, 0);
        if clean && open <= files + FILES_MORE {
            break;
        }
        assert!(Instant::now() < given_up, "{open} files, {files} before: {now:?}");
        sleep(Duration::from_millis(100)).await;
    }
    let mut discovery = DiscoveryClient::new(connect(server.address()).await);
    let listed = discovery.list_services(ListServicesRequest::default()).await.expect("listed");
    assert_eq!(listed.into_inner().services, []);
    assert!(!server.log().contains("panic"), "{}", server.log());
}
