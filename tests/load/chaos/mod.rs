//! Processes are killed, stopped and restarted, the registry's among them, while callers pick and
//! call. An oracle that has the true state, from the signals sent, judges all views.
//!
//! ```sh
//! WAYPOST_CHAOS_SECONDS=600 cargo test --release --test load chaos -- --nocapture
//! ```
//! `WAYPOST_SEED` repeats the faults of an earlier run.

mod caller;
mod observer;
mod oracle;
mod outage;
mod plan;
mod replica;
mod world;

use std::time::{Duration, Instant};

use waypost_testing::seed::{from_environment, seed};

use self::{
    plan::FaultPlan,
    world::{Setting, World},
};
use crate::support::shared;

const REPLICAS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_replicas_stay_and_dead_ones_leave_views_in_time() {
    let _shared = shared().await;
    let seed = seed();
    let time = Duration::from_secs(from_environment("WAYPOST_CHAOS_SECONDS").unwrap_or(25));
    eprintln!("WAYPOST_CHAOS_SECONDS={}", time.as_secs());
    let mut random = fastrand::Rng::with_seed(seed);
    let setting = Setting {
        replicas: REPLICAS,
        callers: 4,
        ttl: Duration::from_secs(3),
        // Of every other replica; the others have the default.
        grace: Duration::from_millis(500),
        hold: Duration::from_secs(3),
    };
    let begun = Instant::now();
    let mut world = World::start(setting).await;
    let mut round = 0;
    while round < plan::KINDS.len() || begun.elapsed() < time {
        let plan = FaultPlan::random(&mut random, round, &world.setting);
        eprintln!("{:6.1} s  {plan}", begun.elapsed().as_secs_f64());
        world.endure(plan).await;
        world.come_to_rest().await;
        world.judge().await;
        round += 1;
    }
    // Replicas that were lost wrongly in the last round have expired by then.
    tokio::time::sleep(world.setting.ttl).await;
    world.judge().await;
    eprintln!("{} rounds in {:?}: {}", round, begun.elapsed(), world.summary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_process_is_not_picked_after_its_grace_and_100_ms() {
    let _shared = shared().await;
    let setting = Setting {
        replicas: 8,
        callers: 4,
        ttl: Duration::from_secs(15),
        grace: Duration::from_millis(500),
        hold: Duration::from_secs(15),
    };
    let mut world = World::start(setting).await;
    for number in 0..4 {
        world.kill(number);
    }
    world.come_to_rest().await;
    world.judge().await;
    let removals = world.summary.removals_by_grace();
    eprintln!("{}", world.summary);
    assert_eq!(removals, 4 * world.setting.callers, "each was judged by its grace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_survive_a_registry_stalled_for_many_ttls() {
    let _shared = shared().await;
    let setting = Setting {
        replicas: REPLICAS,
        callers: 1,
        ttl: Duration::from_secs(2),
        grace: Duration::from_secs(2),
        hold: Duration::from_secs(15),
    };
    let mut world = World::start(setting).await;
    world.endure(FaultPlan::standstill(Duration::from_secs(15))).await;
    // Replicas that did not come back are removed by then.
    tokio::time::sleep(world.setting.ttl * 3 / 2).await;
    world.come_to_rest().await;
    world.judge().await;
    eprintln!("{}", world.summary);
}
