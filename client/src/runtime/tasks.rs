//! The one place that spawns. A task here is named, and it must never end by a panic in silence.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use tracing::Instrument;

/// Runs `task` in the background; its log lines carry `name`.
///
/// # Panics
/// Outside a tokio runtime.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let watched = async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a background task of waypost-client panicked");
        }
    };
    tokio::spawn(watched.instrument(tracing::debug_span!("waypost", task = name)));
}

/// What `work` gives, which may block: it is done away from the runtime's workers. `None` where it
/// panicked, or where the runtime ended first. Cancel safe in that the work goes on.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    if done.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        tracing::error!("what waypost-client did on the disk panicked");
    }
    done.ok()
}

/// Runs what an HTTP/2 connection needs run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        spawn("http2", future);
    }
}
