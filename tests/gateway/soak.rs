//! A scanner at work beside good callers: they do not notice it, and it leaves nothing behind.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    ALONE,
    crowd::Crowd,
    entrance::{Entrance, serving},
    registry::Registry,
    replica::Replica,
    scanner::Scanners,
};

const CALLERS: usize = 50;
const SCANNERS: u64 = 16;
/// Of good callers, between two requests.
const PAUSE: Duration = Duration::from_millis(40);
/// From when on memory has to stay as it is; a third of shorter runs.
const WARM_UP_MAX: Duration = Duration::from_secs(60);
/// Growth of memory after the warm-up, at most.
const GROWTH_MAX: u64 = 24 << 20;
/// Bytes of the metrics, at most.
const METRICS_MAX: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scanner_fails_no_good_request_and_leaves_nothing_behind() {
    let _alone = ALONE.lock().await;
    let given = env::var("WAYPOST_GATEWAY_SECONDS").ok();
    let seconds = given.map_or(9, |text| text.parse().expect("a number"));
    let (time, seed) = (Duration::from_secs(seconds), fastrand::u64(..));
    eprintln!("seed {seed}");
    let registry = Registry::start().await;
    let _replicas =
        [1, 2, 3].map(|number| Replica::start(format!("r-{number}"), &registry.port_file()));
    let entrance = Entrance::start_measured(&registry.port_file()).await;
    serving(&entrance).await;
    let scanners = Scanners::start(entrance.address(), SCANNERS, seed);
    let begun = Instant::now();
    let warm_up = WARM_UP_MAX.min(time / 3);
    let (mut good, mut warm, mut last) = (0, None, 0);
    while begun.elapsed() < time {
        // A new crowd each time: what callers keep of their requests is not the gateway's memory.
        let crowd = Crowd::start(entrance.address(), CALLERS, PAUSE);
        sleep(Duration::from_secs(3)).await;
        let asked = crowd.stop().await;
        let failed: Vec<_> = asked.iter().filter(|asked| asked.failed()).collect();
        assert!(failed.is_empty(), "seed {seed}: {:?}", failed.first());
        good += asked.len();
        last = resident();
        if begun.elapsed() >= warm_up {
            warm.get_or_insert(last);
        }
    }
    let connections = scanners.stop().await;
    let metrics = entrance.metrics();
    let (warm, took) = (warm.expect("the warm-up ended"), begun.elapsed());
    eprintln!(
        "{good} good requests and {connections} connections of scanners in {took:.1?}: none failed; \
         memory {} MiB after {warm_up:.0?}, {} MiB at the end; {} bytes of metrics",
        warm >> 20,
        last >> 20,
        metrics.len(),
    );
    assert!(connections > 20, "{connections}");
    assert!(last < warm + GROWTH_MAX, "memory grew from {warm} to {last} bytes, seed {seed}");
    assert!(metrics.len() < METRICS_MAX, "{}", metrics.len());
    assert!(metrics.contains("orders") && !metrics.contains("login"), "{metrics}");
    entrance.close().await;
}

/// Resident bytes of this process, the gateway's and the callers'.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024
}
