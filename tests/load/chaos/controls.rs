//! Threads that do nothing but sleep: how late they wake is how late this machine is, and when.

use std::{sync::{Arc, Mutex, atomic::{AtomicBool, Ordering}}, thread, time::{Duration, Instant}};

const NAP: Duration = Duration::from_millis(2);
/// Lateness that is worth a note.
const LATE_MIN: Duration = Duration::from_millis(1);
const THREADS: usize = 2;

/// The controls at work. They end with this value.
pub(crate) struct Controls {
    stop: Arc<AtomicBool>,
    /// The start of a nap, and its excess.
    late: Arc<Mutex<Vec<(Instant, Duration)>>>,
}

impl Controls {
    pub(crate) fn start() -> Self {
        let controls = Self { stop: Arc::default(), late: Arc::default() };
        for _ in 0..THREADS {
            let (stop, late) = (Arc::clone(&controls.stop), Arc::clone(&controls.late));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    thread::sleep(NAP);
                    let by = begun.elapsed().saturating_sub(NAP);
                    if by > LATE_MIN {
                        late.lock().expect("no panic").push((begun, by));
                    }
                }
            });
        }
        controls
    }

    /// The latest wake-up in a time.
    pub(crate) fn worst(&self, from: Instant, until: Instant) -> Duration {
        let late = self.late.lock().expect("no panic");
        let within = late.iter().filter(|(begun, by)| *begun < until && *begun + NAP + *by > from);
        within.map(|(_, by)| *by).max().unwrap_or(LATE_MIN)
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
