//! The one place that spawns. Each task has a name, is owned, and is waited for at the end; one
//! that ends before it was asked to stops the others.

use std::{future::Future, io, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle, RuntimeFlavor},
    sync::oneshot,
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, error_span};

/// Tasks with one life.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Cancelled when the tasks have to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task. When it ends before [`Self::stop`] was cancelled, by itself or by a panic, that
    /// is an error, and stops everything.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let guarded = async move {
            let guard = EndOfTask { name, stop };
            task.await;
            drop(guard);
        };
        self.tracker.spawn(guarded.instrument(error_span!("task", name)));
    }

    /// As [`Self::spawn`], on a thread of its own: what the task does without waiting holds up nothing
    /// but itself, and it may block. In a runtime of one thread it runs there, as all else does.
    ///
    /// Errors: there can't be another thread.
    pub fn spawn_thread(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            self.spawn(name, task);
            return Ok(());
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (running, end) = oneshot::channel::<()>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(task.instrument(error_span!("task", name)));
            drop(running);
        })?;
        // Dropped by a panic as well.
        self.spawn(name, async move { drop(end.await) });
        Ok(())
    }

    /// Stops the tasks and waits for them until the deadline. `false`: some still ran.
    pub async fn join(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Tasks that come and go, in any number.
#[derive(Debug, Clone, Default)]
pub struct Crowd(TaskTracker);

impl Crowd {
    /// Runs a task, which may end at any time.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    /// Waits until all have ended. Cancel safe.
    pub async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// Has a thread that may wait do some work. Not cancel safe: the work goes on without whoever waited.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // A panic is our own bug, wherever it happens.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Notices the end of a task, however it comes about.
struct EndOfTask {
    name: &'static str,
    stop: CancellationToken,
}

impl Drop for EndOfTask {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            error!(task = self.name, "a task ended unexpectedly, stopping");
            self.stop.cancel();
        }
    }
}
