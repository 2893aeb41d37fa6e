//! The state as all of a registry share it, and a bell that is rung whenever it may have changed. It
//! must never be locked while anything is waited for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::state::State;

/// A registry's state, shared.
#[derive(Debug, Default)]
pub(super) struct Book {
    state: Mutex<State>,
    bell: watch::Sender<()>,
}

impl Book {
    /// Looks at the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state, and rings the bell.
    pub(super) fn alter<T>(&self, alter: impl FnOnce(&mut State) -> T) -> T {
        let altered = alter(&mut self.lock());
        self.bell.send_replace(());
        altered
    }

    /// Hears the bell from now on.
    pub(super) fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a script's mistake left behind is no worse than what scripts do on purpose.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
