//! The registry's process, clients that find it after each restart, replicas as processes, and the
//! order of the tests.

mod clients;
mod replica;

use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use waypost_testing::process::Serve;

pub(crate) use self::{clients::client, replica::ReplicaProcess};

/// Longer than any wait of these tests where all is well.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Waits until no other test runs. For tests that judge delays, spread or memory.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// Waits until no test runs that has to be alone.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Returns the arguments of a registry's process.
pub(crate) fn serve() -> Serve {
    Serve::new(env!("CARGO_BIN_EXE_waypost"))
}
