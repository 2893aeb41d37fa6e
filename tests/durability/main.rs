//! The registry is killed under load, again and again, on one data directory: what it answered is
//! there when it comes back, and nothing else is.
//!
//! ```sh
//! WAYPOST_KILL_ROUNDS=1000 cargo test --test durability -- --nocapture
//! ```
//! `WAYPOST_SEED` repeats the choices of an earlier run; how far a round gets is up to the machine.

#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock and run tasks as their users would"
)]
#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail tests and say with what they ran"
)]
#![allow(clippy::large_futures, reason = "a test's future is as large as the test")]

mod ledger;
mod registry;
#[allow(dead_code, unused_imports, reason = "shared with the tests of the server")]
#[path = "../it/support/mod.rs"]
mod support;
mod tally;
mod view;
mod watcher;
mod world;
mod write;
mod writer;

use std::{env, time::Instant};

use world::World;

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_every_kill_and_nothing_else_does() {
    let seed = given("WAYPOST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = given("WAYPOST_KILL_ROUNDS").unwrap_or(20);
    eprintln!("WAYPOST_SEED={seed} WAYPOST_KILL_ROUNDS={rounds}");
    let begun = Instant::now();
    let mut world = World::start(seed).await;
    for _ in 0..rounds {
        world.endure().await;
        world.judge().await;
    }
    eprintln!("{} in {:?}", world.tally, begun.elapsed());
    assert_eq!(world.tally.rounds, rounds, "every kill was judged");
}
