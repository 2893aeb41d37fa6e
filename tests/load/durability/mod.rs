//! The registry is killed under load and restarted on one data directory: acknowledged writes
//! survive every kill, and refused ones never appear.
//!
//! ```sh
//! WAYPOST_KILL_ROUNDS=1000 cargo test --test load durability -- --nocapture
//! ```
//! `WAYPOST_SEED` repeats the choices of an earlier run; the progress of a round is up to the
//! machine.

mod ledger;
mod tally;
mod view;
mod watcher;
mod world;
mod write;
mod writer;

use std::{error::Error, time::Instant};

use tonic::Status;
use waypost_testing::seed::{from_environment, seed};

use self::world::World;
use crate::support::shared;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_every_kill_and_refused_ones_do_not() {
    let _shared = shared().await;
    let seed = seed();
    let rounds = from_environment("WAYPOST_KILL_ROUNDS").unwrap_or(20);
    eprintln!("WAYPOST_KILL_ROUNDS={rounds}");
    let begun = Instant::now();
    let mut world = World::start(seed).await;
    for _ in 0..rounds {
        world.endure().await;
        world.judge().await;
    }
    eprintln!("{} in {:?}", world.tally, begun.elapsed());
    assert_eq!(world.tally.rounds, rounds, "every kill was judged");
}

/// Returns whether a connection broke. A status from a server has no source.
fn is_broken(status: &Status) -> bool {
    status.source().is_some()
}
