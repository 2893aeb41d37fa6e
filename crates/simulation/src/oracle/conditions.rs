//! The conditions of each host: the time since it reaches the registry, and the time in which the
//! registry itself ran.

use crate::{
    network::REGISTRY,
    time::{Millis, STEP_MS},
};

/// A standstill of the registry from which on connections may have been given up.
const SHAKING_MS: Millis = 1_500;

/// The longest time between the break of a stream and the registry's notice of it.
const AROUND_MS: Millis = 200;

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) at: Millis,
    /// Time in which the registry ran until then.
    pub(crate) run: Millis,
    /// The number of stalls of the registry until then.
    pub(crate) standstills: u64,
}

#[derive(Debug)]
pub(crate) struct Conditions {
    pub(crate) now: Moment,
    /// The last time at which a fault hampered each host or its links.
    hampered: Vec<Moment>,
    /// The start of the registry's present life.
    pub(crate) began: Moment,
    /// The registry's last return from a standstill, or from a crash that breaks connections.
    pub(crate) shaken: Moment,
    /// The length of the current stall of the registry.
    still_ms: Millis,
    /// The moment at the end of each step.
    past: Vec<Moment>,
}

impl Conditions {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            now: Moment::default(),
            hampered: vec![Moment::default(); hosts],
            began: Moment::default(),
            shaken: Moment::default(),
            still_ms: 0,
            past: vec![Moment::default()],
        }
    }

    /// A step has passed, in which the registry's software ran or not.
    pub(crate) fn pass_running(&mut self) {
        self.now.at += STEP_MS;
        self.now.run += STEP_MS;
        if self.still_ms >= SHAKING_MS {
            self.shaken = self.now;
        }
        self.still_ms = 0;
        self.past.push(self.now);
    }

    /// As [`Self::pass_running`].
    pub(crate) fn pass_standing(&mut self) {
        self.now.at += STEP_MS;
        if self.still_ms == 0 {
            self.now.standstills += 1;
        }
        self.still_ms += STEP_MS;
        if self.still_ms >= SHAKING_MS {
            self.shaken = self.now;
        }
        self.past.push(self.now);
    }

    /// The moment at a time that has passed, or up to a step before.
    pub(crate) fn moment(&self, at: Millis) -> Moment {
        let step = usize::try_from(at / STEP_MS).unwrap_or(usize::MAX);
        self.past.get(step).copied().unwrap_or(self.now)
    }

    /// The rest of a lease after its stream broke; at least until a heartbeat is due, where the
    /// registry stood still at that time.
    pub(crate) fn grace_ms(&self, ttl_ms: Millis, grace_ms: Millis, broken_at: Millis) -> Millis {
        let (from, until) = (broken_at.saturating_sub(AROUND_MS), broken_at + AROUND_MS);
        let (from, until) = (self.moment(from), self.moment(until));
        let ran_through = until.run - from.run == until.at - from.at;
        if ran_through { grace_ms } else { grace_ms.max(ttl_ms / 3) }
    }

    pub(crate) fn registry_began(&mut self) {
        self.began = self.now;
        self.shaken = self.now;
    }

    pub(crate) fn hamper(&mut self, host: usize) {
        self.hampered[host] = self.now;
        if host == REGISTRY {
            self.hampered.fill(self.now);
        }
    }

    pub(crate) fn hampered(&self, host: usize) -> Moment {
        self.hampered[host]
    }

    /// Returns whether a host has been without faults for this time.
    pub(crate) fn is_well(&self, host: usize, for_ms: Millis) -> bool {
        self.now.at > self.hampered(host).at + for_ms
    }
}
