//! Background tasks. Only this file spawns. Every task has a name, and a panic in it is logged.

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

/// Returns whether tasks can be spawned here.
pub(crate) fn is_in_runtime() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}

/// Runs `work`, which may block, on the runtime's blocking threads. Returns `None` if it panicked
/// or the runtime ended first. If the future is dropped, the work goes on.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    if done.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        tracing::error!("a blocking disk task of waypost-client panicked");
    }
    done.ok()
}

/// Spawns hyper's tasks for HTTP/2 connections.
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
