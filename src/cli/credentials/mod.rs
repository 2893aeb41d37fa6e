//! Commands that make credentials, without a registry: `ca` issues certificates (`show` lists
//! them), `token` makes static tokens. `whoami` shows what a registry makes of credentials.

pub(crate) mod ca;
mod show;
pub(crate) mod token;
pub(crate) mod whoami;

use std::time::{Duration, SystemTime};

use crate::clock::Clock;

/// Returns the wall time.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(Clock::start().wall().0)
}
