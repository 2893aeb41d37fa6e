//! The threads that serve connections, one for each core. A connection stays with one of them from its
//! first byte to its last, and what it needs of instances is done there, too: an answer wakes nobody but
//! the thread that waits for it.

use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// They end, with whatever is left on them, once this is dropped.
pub(crate) struct Threads {
    runtimes: Vec<Handle>,
    _end: DropGuard,
}

impl Threads {
    /// # Errors
    /// There can't be as many threads.
    pub(crate) fn start() -> io::Result<Self> {
        let end = CancellationToken::new();
        let ended = end.clone();
        let count = thread::available_parallelism().map_or(1, usize::from);
        let start = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, end) = (runtime.handle().clone(), end.clone());
            thread::Builder::new()
                .name(format!("serve-{number}"))
                .spawn(move || runtime.block_on(end.cancelled()))?;
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
