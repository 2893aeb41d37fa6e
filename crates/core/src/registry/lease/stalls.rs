//! Stalls: times in which the server did not run.
//!
//! Pure.

use std::collections::VecDeque;

use crate::model::Tick;

/// The number of stalls that are kept. A server with more of them within one TTL does not work.
const STALLS_MAX: usize = 64;

/// The latest stalls of the server.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// The first and the last millisecond of each, the oldest first.
    spans: VecDeque<(Tick, Tick)>,
}

impl Stalls {
    /// Adds a stall.
    pub(super) fn record(&mut self, from: Tick, until: Tick) {
        self.spans.push_back((from, until));
        if self.spans.len() > STALLS_MAX {
            self.spans.pop_front();
        }
    }

    /// Returns how much of the time since `since` was spent in stalls.
    pub(super) fn ms_since(&self, since: Tick) -> u64 {
        let part = |(from, until): &(Tick, Tick)| until.0.saturating_sub(from.0.max(since.0));
        self.spans.iter().map(part).sum()
    }

    /// Returns whether the server was in a stall or catching up after it.
    pub(super) fn include(&self, tick: Tick) -> bool {
        self.spans.iter().any(|(from, until)| (*from..=*until).contains(&tick))
    }
}
