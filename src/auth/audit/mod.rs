//! The audit log: who did what, and who was refused.
//!
//! From the bottom: `record`, what callers hand in; `repeats`, which records become one; `line`,
//! their written form; `file` and `output`, where they go; `writer`, the task over these.
//! [`AuditLog`] is the handle; `trail`, what calls record into it.
//!
//! Invariant: [`AuditLog::record`] neither waits nor fails. A record that can't be kept is counted,
//! and the next one that is written has the number.

mod file;
mod line;
mod output;
mod record;
mod repeats;
mod trail;
mod writer;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use waypost_serving::tasks::Tasks;

use self::{
    file::{AuditFile, Rotation},
    output::Output,
    writer::{Waiting, Writer},
};
use crate::clock::Clock;

pub use self::record::{AuditKind, AuditOutcome, AuditRecord};
pub(crate) use self::trail::AuditTrail;

/// The greatest number of records that wait to be written; further ones are lost.
const WAITING_MAX: usize = 16_384;

/// The part of the queue that records of strangers can fill. The rest is for known callers.
const STRANGERS_WAITING_MAX: usize = WAITING_MAX / 2;

/// The place where audit records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditDestination {
    /// The log of the server, under `waypost::audit`.
    Log,
    /// A file, with mode 0600. Up to 8 files of 32 MiB: `FILE`, `FILE.1` to `FILE.7`.
    File(PathBuf),
}

/// The audit log can't be started.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file can't be opened.
    #[error("cannot open the audit file {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The thread that writes can't be started.
    #[error("cannot start the thread of the audit log: {0}")]
    Thread(#[source] io::Error),
}

/// A handle to the audit log; cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditLog {
    waiting: mpsc::Sender<Waiting>,
    /// Wakes the writer, which otherwise looks at the queue now and then.
    half_full: Arc<Notify>,
    losses: Arc<Losses>,
    /// The calls that a policy which is not enforced would refuse.
    let_through: Arc<AtomicU64>,
    clock: Clock,
}

/// The records that were not written.
#[derive(Debug, Default)]
struct Losses {
    /// Those that no written record mentions yet.
    unmentioned: AtomicU64,
    total: AtomicU64,
}

impl AuditLog {
    /// Opens the destination and starts to write. Blocks. Records are written until
    /// [`Tasks::stop`]; those that wait then are written, too.
    ///
    /// # Errors
    /// The file can't be opened, or the thread not be started.
    pub fn start(
        destination: AuditDestination,
        tasks: &Tasks,
        clock: Clock,
    ) -> Result<Self, AuditError> {
        Self::start_with(destination, Rotation::default(), tasks, clock)
    }

    fn start_with(
        destination: AuditDestination,
        rotation: Rotation,
        tasks: &Tasks,
        clock: Clock,
    ) -> Result<Self, AuditError> {
        let losses = Arc::new(Losses::default());
        let output = match destination {
            AuditDestination::Log => Output::log(Arc::clone(&losses)),
            AuditDestination::File(path) => match AuditFile::open(path.clone(), rotation) {
                Ok(file) => Output::file(file, Arc::clone(&losses)),
                Err(source) => return Err(AuditError::Open { path, source }),
            },
        };
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        let half_full = Arc::new(Notify::new());
        let writer = Writer::new(queue, Arc::clone(&half_full), output, clock);
        let running = writer.run(tasks.stop().clone());
        tasks.spawn_thread("audit", running).map_err(AuditError::Thread)?;
        Ok(Self { waiting, half_full, losses, let_through: Arc::default(), clock })
    }

    /// Hands a record in. Neither waits nor fails: where 16,384 records wait, it is counted as
    /// lost, as are records of strangers where half as many do.
    pub fn record(&self, record: AuditRecord) {
        let is_half_full = self.waiting.capacity() <= WAITING_MAX - STRANGERS_WAITING_MAX;
        if is_half_full {
            self.half_full.notify_one();
        }
        if is_half_full && record.is_of_stranger() {
            self.losses.count(1);
            self.losses.give_back(1);
            return;
        }
        let lost_before = self.losses.take();
        let waiting = Waiting { record: record.bounded(), at: self.clock.now(), lost_before };
        if self.waiting.try_send(waiting).is_err() {
            self.losses.count(1);
            self.losses.give_back(lost_before + 1);
        }
    }

    /// Returns the number of records that were lost since the start.
    pub fn lost(&self) -> u64 {
        self.losses.total.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that were let through though the policy refuses them.
    pub fn let_through(&self) -> u64 {
        self.let_through.load(Ordering::Relaxed)
    }

    fn count_let_through(&self) {
        self.let_through.fetch_add(1, Ordering::Relaxed);
    }
}

impl Losses {
    fn count(&self, lost: u64) {
        self.total.fetch_add(lost, Ordering::Relaxed);
    }

    fn give_back(&self, lost: u64) {
        self.unmentioned.fetch_add(lost, Ordering::Relaxed);
    }

    /// Returns the losses to mention; the caller does so, or gives them back.
    fn take(&self) -> u64 {
        // Usually zero: callers on other processors then need not write to it.
        match self.unmentioned.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.unmentioned.swap(0, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
