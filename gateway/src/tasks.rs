//! The one place that spawns. A task here is named, is waited for when the gateway ends, and never ends by
//! a panic in silence.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The tasks of one gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs `task` in the background; its log lines carry `name`.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_on(&Handle::current(), name, task);
    }

    /// The same on another runtime.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub(crate) fn spawn_on(
        &self,
        runtime: &Handle,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        // No `async` block, which would have room for the task twice.
        let watched = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if ended.is_err() {
                tracing::error!(task = name, "a background task panicked");
            }
        });
        let watched = watched.instrument(tracing::debug_span!("gateway", task = name));
        self.tracker.spawn_on(watched, runtime);
    }

    /// Waits until all have ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
