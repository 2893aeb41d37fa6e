//! The state that all handles of a registry share, with a signal after each change.
//!
//! Invariant: the lock is never held over `.await`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use waypost_core::model::WallTime;

use super::state::FakeState;
use crate::runtime::clock::{self, Instant};

/// The shared state of a registry.
#[derive(Debug)]
pub(super) struct SharedState {
    state: Mutex<FakeState>,
    changed: watch::Sender<()>,
    started: Instant,
}

impl Default for SharedState {
    fn default() -> Self {
        // Each registry has histories and leases of its own; seeding `fastrand` repeats them.
        let state = FakeState::new(u64::from(fastrand::u32(..)) << 32);
        Self { state: Mutex::new(state), changed: watch::Sender::default(), started: clock::now() }
    }
}

impl SharedState {
    /// Reads the state.
    pub(super) fn read<T>(&self, read: impl FnOnce(&FakeState) -> T) -> T {
        read(&self.lock())
    }

    /// Changes the state, and signals it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut FakeState) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.send_replace(());
        changed
    }

    /// Receives the signals from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns the registry's wall clock: it starts at 0 and follows tokio's time, so that tests
    /// are repeatable.
    pub(super) fn wall(&self) -> WallTime {
        let since = clock::now().saturating_duration_since(self.started);
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, FakeState> {
        // A panicking test leaves a valid state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
