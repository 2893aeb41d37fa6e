//! When to heartbeat, when to reconnect, when to register again. Pure: told what happened and when,
//! it says what to do next. It must never do two things about the registry at once, nor fight: an identity
//! that another process took over is not taken back while that process is reached elsewhere. A process that
//! was away takes its identity over as a new one does: an expired lease does not show who holds it now.

use std::time::Duration;

use crate::runtime::{backoff::Backoff, clock::Instant};

/// A lease that was fenced off again and again is taken back with a growing delay; this long of
/// peace ends the suspicion.
const CONFLICT_WINDOW: Duration = Duration::from_secs(600);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Register, now.
    Register,
    /// Ask what became of this lease, which is lost.
    QueryLease(u64),
    /// Look up which process holds the identity: another one took it over.
    FindHolder,
    /// Open a keep-alive stream whose first heartbeat renews this lease.
    OpenStream(u64),
    /// Renew this lease over the open stream.
    Heartbeat(u64),
    /// Give the stream up: no answer came in time.
    FailStream,
    /// Nothing before then.
    Wait(Instant),
}

/// What the registry granted.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) lease_id: u64,
    pub(crate) heartbeat_interval: Duration,
    /// The history and revision in which the identity came to be: the same as last time when it
    /// never left the registry.
    pub(crate) origin: (String, u64),
}

/// One registration's lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The last one.
    grant: Option<Grant>,
    granted_at: Instant,
    /// While there is no lease: it is lost, or none was granted yet.
    lost: Option<Lost>,
    stream: StreamState,
    /// Between attempts to reach the registry.
    reconnect: Backoff,
    /// Between attempts that the registry refuses.
    refused: Backoff,
    /// Between losses to another holder of the same identity, and between looks at it.
    conflict: Backoff,
    /// Whether the last lease was lost within a heartbeat interval.
    lost_early: bool,
}

/// What to do about a lease that does not live any more.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lost {
    /// When.
    at: Instant,
    next: Recovery,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Recovery {
    Register,
    /// Find out first whether another process has taken it over.
    QueryLease,
    /// Find out first whether the other process still holds it, and where that one is reached.
    FindHolder,
}

/// What became of a lost lease, or of the identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LossCause {
    /// Another process registered the identity.
    Fenced,
    /// The registry does not know it: it ran out, or the registry has forgotten it.
    NotFound,
    /// Another process holds the identity, and is reached at another address.
    HeldElsewhere,
    /// Another lease holds the identity for the same address, or for one that is not known.
    HeldAtSameAddress,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum StreamState {
    Closed {
        open_at: Instant,
    },
    Idle {
        beat_at: Instant,
    },
    /// A heartbeat was sent at `sent_at` and has not been answered.
    Awaiting {
        sent_at: Instant,
        /// Whether none was answered before on this stream.
        first: bool,
    },
}

impl Lease {
    /// A lease that is to be granted, from `now` on.
    pub(crate) fn new(now: Instant, reconnect: Backoff) -> Self {
        Self {
            grant: None,
            granted_at: now,
            lost: Some(Lost { at: now, next: Recovery::Register }),
            stream: StreamState::Closed { open_at: now },
            reconnect,
            refused: Backoff::new(Duration::from_secs(5), Duration::from_secs(60)),
            conflict: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            lost_early: false,
        }
    }

    /// The lease, unless it is lost.
    pub(crate) fn id(&self) -> Option<u64> {
        self.grant.as_ref().filter(|_| self.lost.is_none()).map(|grant| grant.lease_id)
    }

    /// Whether there was none so far.
    pub(crate) fn is_new(&self) -> bool {
        self.grant.is_none()
    }

    /// How long a heartbeat may be on its way: until the next one is due.
    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        self.grant.as_ref().map_or(Duration::ZERO, |grant| grant.heartbeat_interval)
    }

    pub(crate) fn step(&self, now: Instant) -> Step {
        let id = self.grant.as_ref().map_or(0, |grant| grant.lease_id);
        if let Some(Lost { at, next }) = self.lost {
            let step = match next {
                Recovery::Register => Step::Register,
                Recovery::QueryLease => Step::QueryLease(id),
                Recovery::FindHolder => Step::FindHolder,
            };
            return due(at, now, step);
        }
        match self.stream {
            StreamState::Closed { open_at } => due(open_at, now, Step::OpenStream(id)),
            StreamState::Idle { beat_at } => due(beat_at, now, Step::Heartbeat(id)),
            StreamState::Awaiting { sent_at, .. } => {
                due(sent_at + self.heartbeat_timeout(), now, Step::FailStream)
            }
        }
    }

    /// A heartbeat went out, the first of a stream or another.
    pub(crate) fn heartbeat_sent(&mut self, now: Instant) {
        let first = matches!(self.stream, StreamState::Closed { .. });
        self.stream = StreamState::Awaiting { sent_at: now, first };
    }

    /// An answer came; `unknown` are the leases that don't live.
    pub(crate) fn heartbeat_answered(&mut self, unknown: &[u64], now: Instant) {
        let StreamState::Awaiting { sent_at, first } = self.stream else { return };
        self.stream = StreamState::Idle { beat_at: sent_at + self.heartbeat_timeout() };
        // Only a stream that lasted proves that the registry is well: else streams that break after
        // one answer would be opened again and again without a pause.
        if !first {
            self.reconnect.reset();
        }
        let Some(id) = self.id().filter(|id| unknown.contains(id)) else { return };
        if first {
            self.mark_lost_while_away(id, now);
        } else {
            self.mark_lost(id, now);
        }
    }

    /// The stream broke or could not be opened. `random` is from 0 to 1.
    pub(crate) fn stream_failed(&mut self, now: Instant, random: f64, hint: Option<Duration>) {
        let began = match self.stream {
            StreamState::Closed { open_at } => open_at,
            StreamState::Awaiting { sent_at, .. } => sent_at,
            StreamState::Idle { .. } => now,
        };
        self.stream = StreamState::Closed { open_at: self.retry_at(began, now, random, hint) };
    }

    /// Heartbeats are to go over another stream from now on.
    pub(crate) fn stream_moved(&mut self, now: Instant) {
        self.stream = StreamState::Closed { open_at: now };
    }

    /// The lease `id` is known not to live, after a time without a connection: a registry that came
    /// back without its leases is not asked about each.
    fn mark_lost_while_away(&mut self, id: u64, now: Instant) {
        self.mark_lost(id, now);
        if let Some(Lost { next, .. }) = &mut self.lost
            && self.conflict.is_fresh()
        {
            *next = Recovery::Register;
        }
    }

    /// The lease `id` is known not to live, although nothing has kept it from being renewed: most
    /// likely another process has registered the identity.
    pub(crate) fn mark_lost(&mut self, id: u64, now: Instant) {
        if self.id() != Some(id) {
            return;
        }
        if now >= self.granted_at + CONFLICT_WINDOW {
            self.conflict.reset();
        }
        self.lost_early = now < self.granted_at + self.heartbeat_timeout();
        self.lost = Some(Lost { at: now, next: Recovery::QueryLease });
    }

    /// Takes in what became of a lost lease that another process may have taken over.
    pub(crate) fn loss_explained(&mut self, cause: LossCause, now: Instant, random: f64) {
        // At least half of the delay: two processes that fight must both come to rest. A registry
        // that forgets at once must not be told without a pause either.
        if cause == LossCause::HeldElsewhere {
            // That explains it.
            self.lost_early = false;
        }
        let mut pause = || self.conflict.delay(0.5 + random / 2.0, None);
        let (delay, next) = match cause {
            LossCause::Fenced => (Duration::ZERO, Recovery::FindHolder),
            LossCause::HeldElsewhere => (pause(), Recovery::FindHolder),
            LossCause::HeldAtSameAddress => (pause(), Recovery::Register),
            LossCause::NotFound if self.lost_early => (pause(), Recovery::Register),
            LossCause::NotFound => (Duration::ZERO, Recovery::Register),
        };
        self.lost = Some(Lost { at: now + delay, next });
    }

    /// Registered, for the first time or again. The lease is not yet renewed.
    pub(crate) fn granted(&mut self, grant: Grant, now: Instant) {
        match &self.grant {
            None => self.settle(&grant),
            // The identity lives on since the last time, but the lease was not ours any more:
            // someone else had registered it. Taking it back for ever would never end. Nor would
            // registering with a registry that forgets at once, or with two by turns.
            Some(before) if grant.origin == before.origin || self.lost_early => {
                if self.conflict.is_fresh() {
                    self.conflict.delay(0.0, None);
                }
            }
            Some(_) => self.conflict.reset(),
        }
        self.grant = Some(grant);
        self.granted_at = now;
        self.lost = None;
        self.refused.reset();
        // Renewed over the stream at once: only then its end tells the registry of ours.
        self.stream = match self.stream {
            StreamState::Closed { .. } => StreamState::Closed { open_at: now },
            StreamState::Idle { .. } | StreamState::Awaiting { .. } => {
                StreamState::Idle { beat_at: now }
            }
        };
    }

    /// What the way to the first lease took tells nothing about what comes after it.
    fn settle(&mut self, grant: &Grant) {
        self.reconnect.reset();
        // A registry that comes back gives every lease some time to be renewed. Rarer attempts than
        // heartbeats would miss it.
        self.reconnect = self.reconnect.clone().capped(grant.heartbeat_interval / 2);
    }

    /// The registry could not be asked about a lost lease, or to register.
    pub(crate) fn unreachable(&mut self, now: Instant, random: f64, hint: Option<Duration>) {
        if let Some(Lost { at, next }) = self.lost {
            let at = self.retry_at(at, now, random, hint);
            self.lost = Some(Lost { at, next });
        }
    }

    /// The registry refused to register.
    pub(crate) fn refused(&mut self, now: Instant, random: f64) {
        let at = now + self.refused.delay(0.5 + random / 2.0, None);
        self.lost = Some(Lost { at, next: Recovery::Register });
    }

    /// What is to be registered changed: where it was refused, it may do now.
    pub(crate) fn desired_changed(&mut self, now: Instant) {
        if let Some(lost) = &mut self.lost
            && !self.refused.is_fresh()
        {
            self.refused.reset();
            lost.at = now;
        }
    }

    /// When to try again what was begun at `began` and has failed.
    ///
    /// The time that it took counts: a registry that stood still took connections and answered
    /// none. When it goes on it finds the streams broken that were given up meanwhile, and a lease
    /// has no more than its grace left: by then the next attempt has to be under way.
    fn retry_at(
        &mut self,
        began: Instant,
        now: Instant,
        random: f64,
        hint: Option<Duration>,
    ) -> Instant {
        let from = if hint.is_some() { now } else { began.min(now) };
        (from + self.reconnect.delay(random, hint)).max(now)
    }
}

fn due(at: Instant, now: Instant, step: Step) -> Step {
    if at <= now { step } else { Step::Wait(at) }
}

#[cfg(test)]
mod tests;
