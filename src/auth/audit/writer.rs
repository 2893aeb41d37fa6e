//! The task that writes audit records. It may block: it has a thread of its own.
//!
//! Invariant: records gather until it looks, which costs their senders no system call. A sender
//! wakes it only where the queue is half full.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Notify, mpsc::Receiver},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    WAITING_MAX,
    output::Output,
    record::AuditRecord,
    repeats::{Ready, Repeats},
};
use crate::{clock::Clock, registry::Now};

/// The time between two looks at the queue.
const GATHERING: Duration = Duration::from_millis(200);

/// A record in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) record: AuditRecord,
    pub(super) at: Now,
    /// The number of records that were lost before it.
    pub(super) lost_before: u64,
}

/// The task.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Receiver<Waiting>,
    half_full: Arc<Notify>,
    output: Output,
    clock: Clock,
    repeats: Repeats,
    ready: Vec<Ready>,
}

impl Writer {
    pub(super) fn new(
        queue: Receiver<Waiting>,
        half_full: Arc<Notify>,
        output: Output,
        clock: Clock,
    ) -> Self {
        let (repeats, ready) = (Repeats::default(), Vec::new());
        Self { queue, half_full, output, clock, repeats, ready }
    }

    /// Writes until `stop` is cancelled, then the rest.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let written = stop.run_until_cancelled(self.write_batches()).await;
        self.take_waiting();
        self.repeats.release_all(&mut self.ready);
        self.output.write(&mut self.ready);
        if written.is_some() {
            // No handle is left; a task that ends early would stop the program.
            stop.cancelled().await;
        }
    }

    /// Writes until no handle is left. Cancel safe: records stay in the queue or in `self`.
    async fn write_batches(&mut self) {
        while !self.queue.is_closed() {
            select! {
                () = sleep(GATHERING) => {}
                () = self.half_full.notified() => {}
            }
            self.take_waiting();
            self.repeats.release(self.clock.tick(), &mut self.ready);
            self.output.write(&mut self.ready);
        }
    }

    /// Takes the records that wait, at most as many as the queue holds.
    fn take_waiting(&mut self) {
        for _ in 0..WAITING_MAX {
            let Ok(waiting) = self.queue.try_recv() else { return };
            self.accept(waiting);
        }
    }

    fn accept(&mut self, waiting: Waiting) {
        if waiting.lost_before > 0 {
            // The records before a loss do not mention it.
            self.output.write(&mut self.ready);
            self.output.mention(waiting.lost_before);
        }
        self.repeats.accept(waiting.record, waiting.at, &mut self.ready);
    }
}
