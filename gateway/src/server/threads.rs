//! The threads that serve connections, one for each core. A connection stays with one of them from its
//! first byte to its last, and what it needs of instances is done there, too: an answer wakes nobody but
//! the thread that waits for it.

use std::{hint::black_box, io, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use waypost_serving::tasks::Tasks;

/// How often a thread that rests lets the allocator return memory.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);
/// More than mimalloc takes from a page that it shares, so that a page is freed with it.
const PURGE_BYTES: usize = 2 * 1024 * 1024;

/// They end, with whatever is left on them, once this is dropped.
pub(crate) struct Threads {
    runtimes: Vec<Handle>,
    _end: DropGuard,
}

impl Threads {
    /// # Errors
    /// There can't be as many threads.
    pub(crate) fn start(tasks: &Tasks) -> io::Result<Self> {
        let end = CancellationToken::new();
        let ended = end.clone();
        let count = thread::available_parallelism().map_or(1, usize::from);
        let start = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, end) = (runtime.handle().clone(), end.clone());
            let (running, died) = oneshot::channel::<()>();
            thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
                runtime.block_on(end.run_until_cancelled(purge()));
                drop(running);
            })?;
            let stop = tasks.stop().clone();
            // A panic drops `running` as well: what is put on the thread then would never run.
            tasks.spawn("serving thread", async move {
                stop.run_until_cancelled(died).await;
            });
            Ok(handle)
        };
        let runtimes = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { runtimes, _end: ended.drop_guard() })
    }

    /// Where tasks are put on them, in turns.
    pub(crate) fn turns(&self) -> impl Iterator<Item = Handle> + Send + use<> {
        self.runtimes.clone().into_iter().cycle()
    }
}

/// Keeps the allocator from holding on to what was freed after a burst. mimalloc returns freed pages to the
/// system a second later at the earliest, and only as another page is freed: on a thread without a request,
/// that is never. The bytes are not touched, so that they cost no memory.
async fn purge() {
    loop {
        sleep(PURGE_INTERVAL).await;
        drop(black_box(Vec::<u8>::with_capacity(PURGE_BYTES)));
    }
}
