//! Short pauses of a long turn, in which others may have the core. Left to itself, the system's
//! scheduler has a thread go on for milliseconds where another would answer a lookup in microseconds.

use std::thread;

use crate::{clock::Clock, model::Tick};

/// Steps of a turn between two pauses.
const STRETCH: usize = 64;
/// A pause that takes longer went to somebody who keeps the core busy: no lookup takes as long.
const PAUSE_MAX_MS: u64 = 1;
/// How long there are no pauses after one that took longer. Each would cost as much, and leave to others
/// what of the core is the engine's.
const CROWDED_MS: u64 = 100;

/// When there are pauses.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// None before.
    from: Tick,
}

impl Pauses {
    /// A pause, where it is time for one after so many steps.
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
    fn a_long_pause_is_the_last_for_a_while() {
        let mut pauses = Pauses::default();
        pauses.ended(Tick(500), Tick(501));
        assert_eq!(pauses.from, Tick(0));
        pauses.ended(Tick(501), Tick(503));
        assert_eq!(pauses.from, Tick(603));
    }
}
