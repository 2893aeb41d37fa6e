//! The state machine of a lease: when to send heartbeats, reconnect and register again. Pure:
//! events and times come in, the next step goes out. Invariants: at most one step at a time; an
//! identity that another process took over is not taken back while that process is registered at
//! another address. After an outage the client does take its identity back, because an expired
//! lease does not show the present holder.

use std::time::Duration;

use crate::{
    registry::{CredentialState, denied_backoff, denied_delay},
    runtime::{backoff::Backoff, clock::Instant},
};

/// The time that a lease must last to end a conflict over the identity: until then each loss of it
/// delays the next registration longer.
const CONFLICT_WINDOW: Duration = Duration::from_secs(600);

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Register now.
    Register,
    /// Ask the registry what became of this lost lease.
    QueryLease(u64),
    /// Look up the process that took over the identity.
    FindHolder,
    /// Open a stream with the first heartbeat of this lease.
    OpenStream(u64),
    /// Renew this lease over the open stream.
    Heartbeat(u64),
    /// Fail the stream: no response came in time.
    FailStream,
    /// Do nothing before this time.
    Wait(Instant),
}

/// A lease that the registry granted.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) lease_id: u64,
    pub(crate) heartbeat_interval: Duration,
    /// The history and revision in which the identity was created. Unchanged if the identity never
    /// left the registry.
    pub(crate) origin: (String, u64),
}

/// The lease of one registration.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The last grant.
    grant: Option<Grant>,
    granted_at: Instant,
    /// Set while there is no lease: it was lost, or not granted yet.
    lost: Option<Lost>,
    stream: StreamState,
    /// Between attempts to reach the registry.
    reconnect: Backoff,
    /// Between registrations that the registry refuses.
    refused: Backoff,
    /// Between attempts with credentials that the registry refuses.
    denied: Backoff,
    /// The time of the refusal whose delay is under way.
    denied_at: Option<Instant>,
    /// Between losses to another holder of the identity, and between lookups of it.
    conflict: Backoff,
    /// True if the last lease was lost within a heartbeat interval.
    lost_early: bool,
}

/// The recovery from a lost lease.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lost {
    /// The time of the next step.
    at: Instant,
    next: Recovery,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Recovery {
    Register,
    /// First find out whether another process took over the identity.
    QueryLease,
    /// First find out whether the other process still holds it, and at which address.
    FindHolder,
}

/// The fate of a lost lease and its identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LossCause {
    /// Another process registered the identity.
    Fenced,
    /// The registry does not know the identity: its lease expired, or the registry lost its state.
    NotFound,
    /// Another process holds the identity, at another address.
    HeldElsewhere,
    /// Another lease holds the identity, at the same address or an unknown one.
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
    /// A heartbeat was sent at `sent_at` and not answered yet.
    Awaiting {
        sent_at: Instant,
        /// True for the first heartbeat of a stream.
        first: bool,
    },
}

impl Lease {
    /// Starts without a lease, to be granted from `now` on.
    pub(crate) fn new(now: Instant, reconnect: Backoff) -> Self {
        Self {
            grant: None,
            granted_at: now,
            lost: Some(Lost { at: now, next: Recovery::Register }),
            stream: StreamState::Closed { open_at: now },
            reconnect,
            refused: Backoff::new(Duration::from_secs(5), Duration::from_secs(60)),
            denied: denied_backoff(),
            denied_at: None,
            conflict: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            lost_early: false,
        }
    }

    /// The lease, unless it is lost.
    pub(crate) fn id(&self) -> Option<u64> {
        self.grant.as_ref().filter(|_| self.lost.is_none()).map(|grant| grant.lease_id)
    }

    /// Returns whether no lease was granted yet.
    pub(crate) fn is_new(&self) -> bool {
        self.grant.is_none()
    }

    /// The longest time that a heartbeat stays unanswered: until the next one is due.
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

    /// A heartbeat was sent, the first of a stream or another.
    pub(crate) fn heartbeat_sent(&mut self, now: Instant) {
        self.denied_at = None;
        let first = matches!(self.stream, StreamState::Closed { .. });
        self.stream = StreamState::Awaiting { sent_at: now, first };
    }

    /// A response came; `unknown` are the leases that are not active.
    pub(crate) fn heartbeat_answered(&mut self, unknown: &[u64], now: Instant) {
        let StreamState::Awaiting { sent_at, first } = self.stream else { return };
        self.denied.reset();
        self.stream = StreamState::Idle { beat_at: sent_at + self.heartbeat_timeout() };
        // Only a stream that lasted proves that the registry works. Otherwise streams that fail
        // after one response would be opened again and again without a delay.
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

    /// The stream failed, or could not be opened. `random` is from 0 to 1.
    pub(crate) fn stream_failed(&mut self, now: Instant, random: f64, hint: Option<Duration>) {
        let began = match self.stream {
            StreamState::Closed { open_at } => open_at,
            StreamState::Awaiting { sent_at, .. } => sent_at,
            StreamState::Idle { .. } => now,
        };
        self.stream = StreamState::Closed { open_at: self.retry_at(began, now, random, hint) };
    }

    /// Heartbeats go over another stream from now on.
    pub(crate) fn stream_moved(&mut self, now: Instant) {
        self.stream = StreamState::Closed { open_at: now };
    }

    /// The lease `id` is not active, after a time without a connection: a registry that lost its
    /// leases is not asked about each of them.
    fn mark_lost_while_away(&mut self, id: u64, now: Instant) {
        self.mark_lost(id, now);
        if let Some(Lost { next, .. }) = &mut self.lost
            && self.conflict.is_fresh()
        {
            *next = Recovery::Register;
        }
    }

    /// The lease `id` is not active, although it was renewed in time: most likely another process
    /// registered the identity.
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

    /// Takes note of what became of a lost lease.
    pub(crate) fn loss_explained(&mut self, cause: LossCause, now: Instant, random: f64) {
        // Half of the delay at least: two processes in a conflict must both slow down, and so must
        // a client of a registry that loses leases at once.
        if cause == LossCause::HeldElsewhere {
            // That explains the early loss.
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

    /// The instance was registered, for the first time or again. The lease is not renewed yet.
    pub(crate) fn granted(&mut self, grant: Grant, now: Instant) {
        match &self.grant {
            None => self.settle(&grant),
            // The identity never left the registry, but another process held it in between. Taking
            // it back without a delay would never end; nor would registering with a registry that
            // loses leases at once, or with two registries by turns.
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
        self.denied.reset();
        self.denied_at = None;
        // Renewed over the stream at once: the registry ties a lease to the stream that renewed it
        // last.
        self.stream = match self.stream {
            StreamState::Closed { .. } => StreamState::Closed { open_at: now },
            StreamState::Idle { .. } | StreamState::Awaiting { .. } => {
                StreamState::Idle { beat_at: now }
            }
        };
    }

    /// Resets the backoff of the first connection, which does not predict later ones.
    fn settle(&mut self, grant: &Grant) {
        self.reconnect.reset();
        // A registry that restarts gives every lease some time to be renewed. Attempts at longer
        // intervals than heartbeats could miss it.
        self.reconnect = self.reconnect.clone().capped(grant.heartbeat_interval / 2);
    }

    /// The registry could not be reached for a query about a lost lease, or to register.
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

    /// The registry refused the credentials, of a request or of the stream. `random` is from 0 to
    /// 1.
    pub(crate) fn denied(&mut self, credentials: CredentialState, now: Instant, random: f64) {
        let delay = denied_delay(&mut self.denied, credentials, random);
        self.denied_at = Some(now);
        self.attempt_at(now + delay);
    }

    /// Returns whether the next attempt waits for other credentials.
    pub(crate) fn waits_for_credentials(&self) -> bool {
        self.denied_at.is_some()
    }

    /// The credentials changed, or may have: an attempt that waits for others is made.
    pub(crate) fn credentials_changed(&mut self, now: Instant) {
        if self.denied_at.take().is_some() {
            self.attempt_at(now);
        }
    }

    /// Sets the time of the next attempt after a failed one.
    fn attempt_at(&mut self, at: Instant) {
        match &mut self.lost {
            Some(lost) => lost.at = at,
            None => self.stream = StreamState::Closed { open_at: at },
        }
    }

    /// The desired instance changed: a registration that was refused may succeed now.
    pub(crate) fn desired_changed(&mut self, now: Instant) {
        if let Some(lost) = &mut self.lost
            && !self.refused.is_fresh()
        {
            self.refused.reset();
            lost.at = now;
        }
    }

    /// The time of the next attempt, after one that started at `began` and failed.
    ///
    /// The duration of the attempt counts: a suspended registry accepted connections and did not
    /// respond. When it resumes, it finds streams broken that clients gave up meanwhile, and their
    /// leases have no more than their grace left: by then the next attempt has to be under way.
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
