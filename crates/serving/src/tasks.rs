//! The one place that spawns. Every task has a name and an owner that waits for its end.
//!
//! [`Tasks`] are those that a program can't do without: one that ends early stops the program.
//! A [`TaskSet`] holds those that come and go, such as connections: a panic is logged, and the
//! others go on.

use std::{future::Future, io, panic::AssertUnwindSafe, thread, time::Duration};

use futures_util::FutureExt;
use tokio::{
    runtime::{Builder, Handle, RuntimeFlavor},
    sync::oneshot,
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, error_span};

/// The tasks that a program needs, with one life.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Cancelled when the tasks must stop, by [`Self::join`] or because one of them ended early.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task. Its end before [`Self::stop`] was cancelled, by a panic or otherwise, is an
    /// error: it is logged, and cancels [`Self::stop`].
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let guarded = async move {
            let guard = EndGuard { name, stop };
            task.await;
            drop(guard);
        };
        self.tracker.spawn(guarded.instrument(error_span!("task", name)));
    }

    /// Like [`Self::spawn`], on a thread of its own: the task may block. In a runtime of one thread
    /// the task runs on that thread, as every other does.
    ///
    /// Errors: the thread or its runtime can't be created.
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
        // A panic drops `running` as well.
        self.spawn(name, async move { drop(end.await) });
        Ok(())
    }

    /// Cancels [`Self::stop`] and waits for the tasks until the deadline. `false`: some still ran.
    pub async fn join(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Any number of tasks that come and go.
#[derive(Debug, Clone, Default)]
pub struct TaskSet(TaskTracker);

impl TaskSet {
    /// Runs a task that may end at any time; a panic is logged with its name.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), name, task);
    }

    /// Like [`Self::spawn`], on another runtime.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_on(
        &self,
        runtime: &Handle,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        // Combinators, as an `async` block would reserve room for the task twice.
        let caught = AssertUnwindSafe(task).catch_unwind().map(move |end| {
            if end.is_err() {
                error!(task = name, "a task panicked");
            }
        });
        self.0.spawn_on(caught, runtime);
    }

    /// Waits until all have ended. Cancel safe.
    pub async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// Runs blocking work on a thread that may wait. Not cancel safe: the work goes on.
///
/// Panics: the work panicked.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // A panic is our own bug, on whichever thread it happens.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Detects the end of a task, however it ends.
struct EndGuard {
    name: &'static str,
    stop: CancellationToken,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            error!(task = self.name, "a task ended unexpectedly, stopping the program");
            self.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_that_end_after_the_stop_are_joined() {
        let tasks = Tasks::default();
        let stop = tasks.stop().clone();
        tasks.spawn("one", async move { stop.cancelled().await });
        assert!(tasks.join(Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_early_or_panics_stops_the_others() {
        for panics in [false, true] {
            let tasks = Tasks::default();
            let stop = tasks.stop().clone();
            tasks.spawn("other", async move { stop.cancelled().await });
            tasks.spawn("early", async move { assert!(!panics, "planted") });
            tasks.stop().cancelled().await;
            assert!(tasks.join(Duration::from_secs(1)).await);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_thread_that_panics_stops_the_others() {
        let tasks = Tasks::default();
        tasks.spawn_thread("thread", async { panic!("planted") }).unwrap();
        tasks.stop().cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn join_gives_up_at_its_deadline() {
        let tasks = Tasks::default();
        tasks.spawn("stuck", pending());
        assert!(!tasks.join(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn a_panic_in_a_set_leaves_the_others_running() {
        let set = TaskSet::default();
        let (done, end) = oneshot::channel();
        set.spawn("panics", async { panic!("planted") });
        set.spawn("works", async move { done.send(()).unwrap() });
        end.await.unwrap();
        set.ended().await;
    }
}
