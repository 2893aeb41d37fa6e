//! SIGHUP, by which an operator requests a reload.

use std::{future::pending, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// Receives SIGHUP, which no longer ends the process from when this is created.
#[derive(Debug)]
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// # Panics
    /// Outside a tokio runtime.
    #[expect(clippy::new_without_default, reason = "it has an effect on the process")]
    #[must_use]
    pub fn new() -> Self {
        let signal = signal(SignalKind::hangup());
        let log = |error: &io::Error| {
            warn!(%error, "cannot receive SIGHUP, following the file's content alone");
        };
        Self(signal.inspect_err(log).ok())
    }

    /// Waits for a signal; forever where none can be received. Cancel safe.
    pub async fn received(&mut self) {
        let received = match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if received.is_none() {
            pending::<()>().await;
        }
    }
}
