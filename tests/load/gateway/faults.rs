//! Replicas are killed, drain and start, and the registry is killed and comes back empty, under
//! traffic.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use http::Method;
use tokio::{task::spawn_blocking, time::sleep};
use waypost_testing::{process::RegistryProcess, seed::from_environment};

use crate::{
    gateway::{
        callers::{Callers, RequestOutcome},
        replica::Replica,
        test_gateway::{TestGateway, serving},
    },
    support::{alone, serve},
};

const REPLICAS: usize = 6;
const CALLERS: usize = 50;
/// Between two kills.
const STEP: Duration = Duration::from_secs(2);
/// Requests of one caller are so far apart: steady traffic, and no test of speed.
const PAUSE: Duration = Duration::from_millis(20);
/// The time until a death is visible at the other end of a connection.
const DEATH: Duration = Duration::from_millis(100);

/// The present replicas, and the deaths with their times.
struct Deployment {
    registry: RegistryProcess,
    replicas: Vec<Replica>,
    next: usize,
    killed: BTreeMap<String, Instant>,
}

impl Deployment {
    fn join(&mut self) {
        let id = format!("orders-{:03}", self.next);
        self.next += 1;
        self.replicas.push(Replica::start(id, &self.registry.port_file()));
    }

    fn kill(&mut self) {
        let replica = self.replicas.remove(0);
        let id = replica.id.clone();
        self.killed.insert(id, replica.kill());
    }

    async fn drain(&mut self) {
        let replica = self.replicas.remove(0);
        spawn_blocking(move || replica.leave()).await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_die_drain_and_join_fail_no_safe_request() {
    let _alone = alone().await;
    let time = Duration::from_secs(from_environment("WAYPOST_GATEWAY_SECONDS").unwrap_or(14));
    let registry = serve().log("error").start().await;
    let mut deployment =
        Deployment { registry, replicas: Vec::new(), next: 0, killed: BTreeMap::new() };
    (0..REPLICAS).for_each(|_| deployment.join());
    let gateway = TestGateway::start(&deployment.registry.port_file(), None).await;
    serving(&gateway).await;
    let callers = Callers::start(gateway.address(), CALLERS, PAUSE);
    let begun = Instant::now();
    let mut step = 0;
    while begun.elapsed() < time {
        sleep(STEP / 2).await;
        match step % 5 {
            // While the registry is away, no death and no start is reported.
            2 => deployment.registry.kill().await,
            3 => deployment.registry.start().await,
            _ => {}
        }
        deployment.join();
        sleep(STEP / 2).await;
        deployment.kill();
        if step % 5 == 1 {
            deployment.join();
            deployment.drain().await;
        }
        step += 1;
    }
    let asked = callers.stop().await;
    let lines = gateway.close().await;
    let (gets, posts): (Vec<_>, Vec<_>) = asked.iter().partition(|it| it.method == Method::GET);
    let failed = |all: &[&RequestOutcome]| all.iter().filter(|asked| asked.failed()).count();
    eprintln!(
        "{} kills in {:.1?}: {} of {} GETs and {} of {} POSTs failed",
        deployment.killed.len(),
        begun.elapsed(),
        failed(&gets),
        gets.len(),
        failed(&posts),
        posts.len(),
    );
    assert!(gets.len() > 1_000, "there was traffic");
    for asked in gets {
        assert!(!asked.failed(), "{asked:?}");
    }
    // What may be served only once fails only with its replica.
    for asked in posts.into_iter().filter(|asked| asked.failed()) {
        let line = lines
            .iter()
            .find(|line| asked.body.contains(line["request_id"].as_str().expect("an id")));
        let line = line.unwrap_or_else(|| panic!("no line of {asked:?}"));
        let killed = line["instance"].as_str().and_then(|instance| deployment.killed.get(instance));
        let killed = killed.unwrap_or_else(|| panic!("{asked:?} was at one that lives: {line}"));
        assert!(*killed <= asked.done && asked.sent <= *killed + DEATH, "{asked:?}: {line}");
    }
}
