//! A scanner at the registry's port beside good callers: none of their requests fails, and what it sends
//! leaves nothing behind.
//!
//! ```sh
//! WAYPOST_SOAK_SECONDS=600 cargo test --test it soak -- --nocapture
//! ```
//! `WAYPOST_TEST_SEED` repeats the scanner's choices.

mod callers;
mod scanner;

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

use crate::support::{
    channel_to,
    process::ServerProcess,
    proto::{
        GetStatusRequest, GetStatusResponse, ListServicesRequest, admin_client::AdminClient,
        discovery_client::DiscoveryClient,
    },
    seed, soon,
};

const CALLERS: usize = 20;
const SCANNERS: usize = 16;
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A log that is full before the memory is compared.
const CONFIG: &str = "[limits]\nlog_changes_max = 500\n";
/// What the memory of a server may grow by after the first part of a soak: allocators keep some.
const GROWTH_MAX: u64 = 8 * 1024 * 1024;
/// Files that the runtime of a server may open later.
const FILES_MORE: usize = 8;

/// What all tasks of a soak share.
struct Soak {
    address: SocketAddr,
    is_over: AtomicBool,
    good: AtomicU64,
    scans: AtomicU64,
}

impl Soak {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

async fn status(address: SocketAddr) -> GetStatusResponse {
    let mut admin = AdminClient::new(channel_to(address).await);
    let status = soon("a status", admin.get_status(GetStatusRequest {})).await;
    status.expect("a status").into_inner()
}

/// The files and sockets that the server has open.
fn open_files(server: &ServerProcess) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.id())).expect("its files").count()
}

/// The largest amount of memory that the server has until then.
async fn largest_until(server: &ServerProcess, until: Instant) -> u64 {
    let mut largest = server.memory();
    while Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        largest = largest.max(server.memory());
    }
    largest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scanner_fails_no_good_request_and_leaves_nothing_behind() {
    let given = std::env::var("WAYPOST_SOAK_SECONDS").ok();
    let seconds = given.map_or(9, |text| text.parse().expect("a number"));
    let time = Duration::from_secs(seconds);
    let seed = seed();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("waypost.toml");
    fs::write(&config, CONFIG).expect("a configuration");
    let arguments = ["--store", "memory", "--log", "warn", "--config"].map(OsString::from);
    let arguments = arguments.into_iter().chain([config.into_os_string()]);
    let server = ServerProcess::start_with(arguments).await;
    let files = open_files(&server);
    let (is_over, good, scans) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let soak = Arc::new(Soak { address: server.address, is_over, good, scans });
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        tasks.spawn(callers::call(Arc::clone(&soak), number));
    }
    for number in 0..SCANNERS {
        tasks.spawn(scanner::scan(Arc::clone(&soak), seed.wrapping_add(number as u64)));
    }

    let began = Instant::now();
    // What is kept for reuse is there by then.
    let warm = began + (time / 3).min(Duration::from_secs(60));
    let half = warm + (began + time - warm) / 2;
    let first = largest_until(&server, warm).await;
    let before = largest_until(&server, half).await;
    let after = largest_until(&server, began + time).await;
    soak.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = soon("the end of a task", tasks.join_next()).await {
        ended.expect("no good request fails");
    }

    let mib = |bytes: u64| bytes / 1024 / 1024;
    let (good, scans) = (soak.good.load(Ordering::Relaxed), soak.scans.load(Ordering::Relaxed));
    let memory = format!("{} MiB, {} MiB, {} MiB", mib(first), mib(before), mib(after));
    eprintln!("{good} good requests beside {scans} scans in {seconds} s; memory: {memory}");
    assert!(good > 100 && scans > 100, "{good} good requests, {scans} scans");
    assert!(after <= before + GROWTH_MAX, "it grows: {memory}");
    left_clean(&server, files).await;
}

/// What the scanner named, opened and half closed is gone.
async fn left_clean(server: &ServerProcess, files: usize) {
    let given_up = Instant::now() + Duration::from_secs(30);
    loop {
        let now = status(server.address).await;
        let open = open_files(server);
        let clean = (now.services, now.instances, now.watchers, now.leases) == (0, 0, 0, 0);
        if clean && open <= files + FILES_MORE {
            break;
        }
        assert!(Instant::now() < given_up, "{open} files, {files} before: {now:?}");
        sleep(Duration::from_millis(100)).await;
    }
    let mut discovery = DiscoveryClient::new(channel_to(server.address).await);
    let listed = discovery.list_services(ListServicesRequest::default()).await.expect("listed");
    assert_eq!(listed.into_inner().services, []);
    assert!(!server.log().contains("panic"), "{}", server.log());
}
