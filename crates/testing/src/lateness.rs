//! The delay with which this machine wakes threads: the tolerance of tests that judge times.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const NAP: Duration = Duration::from_millis(2);
/// Lateness from which on it is recorded.
const LATENESS_MIN: Duration = Duration::from_millis(1);
const THREADS: usize = 2;

/// Threads that do nothing but sleep and record how late they wake. They end with this value.
#[derive(Debug)]
pub struct LatenessMonitor {
    stop: Arc<AtomicBool>,
    /// The start of each long nap, and by how much it was too long.
    late: Arc<Mutex<Vec<(Instant, Duration)>>>,
}

impl LatenessMonitor {
    /// Starts the threads.
    pub fn start() -> Self {
        let monitor = Self { stop: Arc::default(), late: Arc::default() };
        for _ in 0..THREADS {
            let (stop, late) = (Arc::clone(&monitor.stop), Arc::clone(&monitor.late));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    thread::sleep(NAP);
                    let by = started.elapsed().saturating_sub(NAP);
                    if by > LATENESS_MIN {
                        late.lock().expect("no monitor panics").push((started, by));
                    }
                }
            });
        }
        monitor
    }

    /// Returns the largest lateness between two times; at least 1 ms.
    ///
    /// # Panics
    /// If a thread of the monitor panicked.
    pub fn worst(&self, from: Instant, until: Instant) -> Duration {
        let late = self.late.lock().expect("no monitor panics");
        let within =
            late.iter().filter(|(started, by)| *started < until && *started + NAP + *by > from);
        within.map(|(_, by)| *by).max().unwrap_or(LATENESS_MIN)
    }
}

impl Drop for LatenessMonitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
