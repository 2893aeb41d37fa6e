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
