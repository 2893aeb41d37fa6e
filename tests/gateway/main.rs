//! The gateway between callers and replicas that come and go: what callers notice of it. Replicas and the
//! registry are processes of their own.
//!
//! ```sh
//! WAYPOST_GATEWAY_SECONDS=60 cargo test --release --test gateway -- --nocapture
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read the clock and run tasks as their users would"
)]
#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail tests and say with what they ran"
)]
#![allow(clippy::large_futures, reason = "a test's future is as large as the test")]

mod crowd;
mod entrance;
mod faults;
#[allow(dead_code, reason = "shared with the tests of chaos")]
#[path = "../chaos/registry.rs"]
mod registry;
mod replica;
mod scanner;
mod soak;
mod spread;
#[allow(dead_code, unused_imports, reason = "shared with the tests of the server")]
#[path = "../it/support/mod.rs"]
mod support;

use std::time::Duration;

use tokio::sync::Mutex;

/// Held by each test that puts load on a gateway: how it spreads means little beside another one's.
static ALONE: Mutex<()> = Mutex::const_new(());

/// No wait of these tests comes near it, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
