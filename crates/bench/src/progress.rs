//! Progress of a run, as a line on standard error.

use std::{
    io::{IsTerminal, Write, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// The intervals between two lines: on a terminal, where each replaces the previous one, and
/// elsewhere.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
const FILE_INTERVAL: Duration = Duration::from_secs(10);

/// The current phase and its completed steps, which the tasks update.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunProgress {
    phase: Arc<Mutex<String>>,
    done: Arc<AtomicU64>,
}

/// Prints progress until dropped.
#[derive(Debug)]
pub(crate) struct ProgressLine(JoinHandle<()>);

impl RunProgress {
    /// Starts a phase.
    pub(crate) fn begin(&self, phase: String) {
        *self.phase.lock() = phase;
        self.done.store(0, Ordering::Relaxed);
    }

    /// Counts a completed step.
    pub(crate) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts printing.
    pub(crate) fn show(&self) -> ProgressLine {
        let progress = self.clone();
        let terminal = stderr().is_terminal();
        ProgressLine(tokio::spawn(async move {
            let begin = Instant::now();
            loop {
                sleep(if terminal { TERMINAL_INTERVAL } else { FILE_INTERVAL }).await;
                let seconds = begin.elapsed().as_secs();
                let (phase, done) =
                    (progress.phase.lock().clone(), progress.done.load(Ordering::Relaxed));
                let line = format!("{seconds} s  {phase}: {done} done");
                let line = if terminal { format!("\r{line}\x1b[K") } else { format!("{line}\n") };
                // A closed standard error does not stop the run.
                let _ = stderr().write_all(line.as_bytes());
            }
        }))
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.0.abort();
        if stderr().is_terminal() {
            let _ = stderr().write_all(b"\r\x1b[K");
        }
    }
}
