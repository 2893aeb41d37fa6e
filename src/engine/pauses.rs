//! Yields the core during a long batch. Otherwise the system's scheduler lets the thread run for
//! milliseconds while another one could answer a lookup in microseconds.

use std::thread;

use crate::{clock::Clock, model::Tick};

/// Steps of a batch between two pauses.
const STRETCH: usize = 64;
/// A longer pause went to a thread that keeps the core busy: no lookup takes as long.
const PAUSE_MAX_MS: u64 = 1;
/// The time without pauses after one that took longer: each would cost as much, and give the
/// engine's share of the core away.
const CROWDED_MS: u64 = 100;

/// The schedule of pauses.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// No pause before this time.
    from: Tick,
}

impl Pauses {
    /// Pauses if one is due after this many steps.
    pub(super) fn after(&mut self, steps: usize, clock: Clock) {
        if steps == 0 || !steps.is_multiple_of(STRETCH) {
            return;
        }
        let begin = clock.tick();
        if begin >= self.from {
            thread::yield_now();
            self.ended(begin, clock.tick());
        }
    }

    fn ended(&mut self, begin: Tick, end: Tick) {
        if end.0 - begin.0 > PAUSE_MAX_MS {
            self.from = Tick(end.0 + CROWDED_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_pause_suspends_pauses_for_a_while() {
        let mut pauses = Pauses::default();
        pauses.ended(Tick(500), Tick(501));
        assert_eq!(pauses.from, Tick(0));
        pauses.ended(Tick(501), Tick(503));
        assert_eq!(pauses.from, Tick(603));
    }
}
