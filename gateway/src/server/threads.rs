//! The threads that serve connections, one for each core. A connection stays on one thread from its
//! first byte to its last, with the connections to instances that its requests use: a response
//! wakes no other thread.

use std::{hint::black_box, io, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use waypost_serving::tasks::Tasks;

/// The interval at which an idle thread lets the allocator return memory.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);
/// More than mimalloc takes from a page that it shares, so that a page is freed with it.
const PURGE_BYTES: usize = 2 * 1024 * 1024;

/// The threads. Dropping it ends them, with what is left on them.
pub(crate) struct ServingThreads {
    runtimes: Vec<Handle>,
    _end: DropGuard,
}

impl ServingThreads {
    /// Starts the threads. One that ends early is a task of `tasks` that ended early.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start(tasks: &Tasks) -> io::Result<Self> {
        let end = CancellationToken::new();
        let guard = end.clone().drop_guard();
        let count = thread::available_parallelism().map_or(1, usize::from);
        let start = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, end) = (runtime.handle().clone(), end.clone());
            let (running, ended) = oneshot::channel::<()>();
            thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
                runtime.block_on(end.run_until_cancelled(purge()));
                drop(running);
            })?;
            let stop = tasks.stop().clone();
            // A panic drops `running` as well. Connections on such a thread would never be served.
            tasks.spawn("serving thread", async move {
                stop.run_until_cancelled(ended).await;
            });
            Ok(handle)
        };
        let runtimes = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { runtimes, _end: guard })
    }

    /// Returns the runtimes of the threads, round robin, without end.
    pub(crate) fn round_robin(&self) -> impl Iterator<Item = Handle> + Send + use<> {
        self.runtimes.clone().into_iter().cycle()
    }
}

/// Keeps the allocator from holding what was freed after a burst. mimalloc returns freed pages to
/// the system a second later at the earliest, and only when another page is freed: on an idle
/// thread, never. The bytes are not touched, so that they cost no memory.
async fn purge() {
    loop {
        sleep(PURGE_INTERVAL).await;
        drop(black_box(Vec::<u8>::with_capacity(PURGE_BYTES)));
    }
}
