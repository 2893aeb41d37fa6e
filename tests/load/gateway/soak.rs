//! A scanner at work beside good callers: they do not notice it, and it leaves nothing behind.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use waypost_testing::{
    process::usage::memory_bytes,
    scanner::{Scanners, Target},
    seed::{from_environment, seed},
};

use crate::{
    gateway::{
        callers::Callers,
        replica::Replica,
        test_gateway::{TestGateway, serving},
    },
    support::{alone, serve},
};

const CALLERS: usize = 50;
const SCANNERS: u64 = 16;
/// The pause of good callers between two requests.
const PAUSE: Duration = Duration::from_millis(40);
/// The time after which memory may not grow; a third of shorter runs.
const WARM_UP_MAX: Duration = Duration::from_secs(60);
/// Growth of memory after the warm-up, at most.
const GROWTH_MAX: u64 = 24 << 20;
/// Bytes of the metrics, at most.
const METRICS_MAX: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scanner_fails_no_valid_request_and_leaves_no_state() {
    let _alone = alone().await;
    let time = Duration::from_secs(from_environment("WAYPOST_GATEWAY_SECONDS").unwrap_or(9));
    let seed = seed();
    let registry = serve().log("error").start().await;
    let _replicas =
        [1, 2, 3].map(|number| Replica::start(format!("r-{number}"), &registry.port_file()));
    let gateway = TestGateway::start_measured(&registry.port_file()).await;
    serving(&gateway).await;
    let scanners = Scanners::start(Target::Http, gateway.address(), SCANNERS, seed);
    let begun = Instant::now();
    let warm_up = WARM_UP_MAX.min(time / 3);
    let (mut good, mut warm, mut last) = (0, None, 0);
    while begun.elapsed() < time {
        // A new callers each time: what callers keep of their requests is not the gateway's memory.
        let callers = Callers::start(gateway.address(), CALLERS, PAUSE);
        sleep(Duration::from_secs(3)).await;
        let asked = callers.stop().await;
        let failed: Vec<_> = asked.iter().filter(|asked| asked.failed()).collect();
        assert!(failed.is_empty(), "seed {seed}: {:?}", failed.first());
        good += asked.len();
        last = memory_bytes("self");
        if begun.elapsed() >= warm_up {
            warm.get_or_insert(last);
        }
    }
    let connections = scanners.stop().await;
    let metrics = gateway.metrics();
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
    gateway.close().await;
}
