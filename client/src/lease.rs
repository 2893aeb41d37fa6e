//! When to heartbeat, when to reconnect, when to register again. Pure: told what happened and when,
//! it says what to do next. It must never do two things about the registry at once, nor fight.

use std::time::Duration;

use crate::{backoff::Backoff, clock::Instant};

/// A lease that was fenced off again and again is taken back with a growing delay; this long of
/// peace ends the suspicion.
const PEACE: Duration = Duration::from_secs(600);

/// How many heartbeat intervals make a TTL.
const HEARTBEATS_A_TTL: u32 = 3;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Register, now.
    Register,
    /// Open a keep-alive stream whose first heartbeat renews this lease.
    Open(u64),
    /// Renew this lease over the open stream.
    Beat(u64),
    /// Give the stream up: no answer came in time.
    Break,
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
    grant: Grant,
    granted_at: Instant,
    /// When the last renewal was sent that the registry answered.
    renewed_at: Instant,
    /// When to register again, while the lease is lost.
    lost: Option<Instant>,
    stream: Stream,
    /// Between attempts to reach the registry.
    reconnect: Backoff,
    /// Between attempts that the registry refuses.
    refused: Backoff,
    /// Between losses to another holder of the same identity.
    contest: Backoff,
    /// Whether the last lease was lost within a heartbeat interval.
    died_young: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Closed {
        open_at: Instant,
    },
    Quiet {
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
    /// A lease that was granted at `now`, not yet renewed.
    pub(crate) fn new(grant: Grant, now: Instant, reconnect: Backoff) -> Self {
        Self {
            granted_at: now,
            renewed_at: now,
            lost: None,
            stream: Stream::Closed { open_at: now },
            // A registry that comes back gives every lease some time to be renewed. Rarer attempts
            // than heartbeats would miss it.
            reconnect: reconnect.capped(grant.heartbeat_interval / 2),
            grant,
            refused: Backoff::new(Duration::from_secs(5), Duration::from_secs(60)),
            contest: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            died_young: false,
        }
    }

    /// The lease, unless it is lost.
    pub(crate) fn id(&self) -> Option<u64> {
        self.lost.is_none().then_some(self.grant.lease_id)
    }

    /// How long a heartbeat may be on its way.
    pub(crate) fn patience(&self) -> Duration {
        self.grant.heartbeat_interval
    }

    pub(crate) fn step(&self, now: Instant) -> Step {
        if let Some(register_at) = self.lost {
            return due(register_at, now, Step::Register);
        }
        let id = self.grant.lease_id;
        match self.stream {
            Stream::Closed { open_at } => due(open_at, now, Step::Open(id)),
            Stream::Quiet { beat_at } => due(beat_at, now, Step::Beat(id)),
            Stream::Awaiting { sent_at, .. } => due(sent_at + self.patience(), now, Step::Break),
        }
    }

    /// A heartbeat went out, the first of a stream or another.
    pub(crate) fn beaten(&mut self, now: Instant) {
        let first = matches!(self.stream, Stream::Closed { .. });
        self.stream = Stream::Awaiting { sent_at: now, first };
    }

    /// An answer came; `unknown` are the leases that don't live. `random` is from 0 to 1.
    pub(crate) fn answered(&mut self, unknown: &[u64], now: Instant, random: f64) {
        let Stream::Awaiting { sent_at, first } = self.stream else { return };
        self.stream = Stream::Quiet { beat_at: sent_at + self.grant.heartbeat_interval };
        // Only a stream that lasted proves that the registry is well: else streams that break after
        // one answer would be opened again and again without a pause.
        if !first {
            self.reconnect.reset();
        }
        if unknown.contains(&self.grant.lease_id) {
            self.lose(self.grant.lease_id, now, random);
        } else {
            self.renewed_at = sent_at;
        }
    }

    /// The stream broke or could not be opened.
    pub(crate) fn broken(&mut self, now: Instant, random: f64, hint: Option<Duration>) {
        let began = match self.stream {
            Stream::Closed { open_at } => open_at,
            Stream::Awaiting { sent_at, .. } => sent_at,
            Stream::Quiet { .. } => now,
        };
        self.stream = Stream::Closed { open_at: self.retry_at(began, now, random, hint) };
    }

    /// The lease `id` is known not to live.
    pub(crate) fn lose(&mut self, id: u64, now: Instant, random: f64) {
        if self.id() != Some(id) {
            return;
        }
        if now >= self.granted_at + PEACE {
            self.contest.reset();
        }
        self.died_young = now < self.granted_at + self.grant.heartbeat_interval;
        // What was not renewed for as long as it lives ran out: nobody needs to have taken it.
        let ran_out = now >= self.renewed_at + HEARTBEATS_A_TTL * self.grant.heartbeat_interval;
        // At least half of the delay: two processes that fight must both come to rest.
        let fought = !self.contest.is_fresh() && !ran_out;
        let delay =
            if fought { self.contest.delay(0.5 + random / 2.0, None) } else { Duration::ZERO };
        self.lost = Some(now + delay);
    }

    /// Registered again.
    pub(crate) fn granted(&mut self, grant: Grant, now: Instant) {
        // The identity lives on since the last time, but the lease was not ours any more: someone
        // else had registered it. Taking it back for ever would never end. Nor would registering with
        // a registry that forgets at once, or with two by turns.
        if grant.origin == self.grant.origin || self.died_young {
            if self.contest.is_fresh() {
                self.contest.delay(0.0, None);
            }
        } else {
            self.contest.reset();
        }
        self.grant = grant;
        self.granted_at = now;
        self.renewed_at = now;
        self.lost = None;
        self.refused.reset();
        // Renewed over the stream at once: only then its end tells the registry of ours.
        self.stream = match self.stream {
            Stream::Closed { .. } => Stream::Closed { open_at: now },
            Stream::Quiet { .. } | Stream::Awaiting { .. } => Stream::Quiet { beat_at: now },
        };
    }

    /// The registry could not be asked to register again.
    pub(crate) fn unreachable(&mut self, now: Instant, random: f64, hint: Option<Duration>) {
        let began = self.lost.unwrap_or(now);
        self.lost = Some(self.retry_at(began, now, random, hint));
    }

    /// The registry refused to register again.
    pub(crate) fn refuse(&mut self, now: Instant, random: f64) {
        self.lost = Some(now + self.refused.delay(0.5 + random / 2.0, None));
    }

    /// What is to be registered changed: where it was refused, it may do now.
    pub(crate) fn amended(&mut self, now: Instant) {
        if self.lost.is_some() && !self.refused.is_fresh() {
            self.refused.reset();
            self.lost = Some(now);
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
