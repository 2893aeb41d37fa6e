//! Who really lived when: known from the signals that were sent. Says by when the dead have to be
//! gone, and who may be missed.

use std::time::{Duration, Instant};

use waypost_testing::lateness::LatenessMonitor;

use crate::chaos::{
    outage::{Outage, OutageKind},
    replica::{Life, Terms},
};

/// What the contract allows beyond a TTL or a grace.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(100);
/// How long a registry that stood still gives to heartbeats that waited, and a little more for the
/// moment before it stood still.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Threads that a removal passes and that this machine may wake late: those of the wheel, of the
/// connection, of the client, and of the caller; and of the kernel, that closes a dead one's sockets.
const HOPS: u32 = 5;
/// How long a replica takes, having come back, to find its lease lost and register again.
const RETURN_MAX: Duration = Duration::from_secs(2);
/// What was done to a replica.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) terms: Terms,
    pub(crate) at: Instant,
    /// When it went on; `None` for one that was killed.
    pub(crate) until: Option<Instant>,
    pub(crate) cause: Cause,
    /// Whether it had been registered for a while.
    pub(crate) settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Killed,
    Stopped,
}

/// Everything that was done since all was at rest.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) losses: Vec<Loss>,
    pub(crate) outages: Vec<Outage>,
    /// How long callers keep whom a new history lacks, and how long they take to see one.
    pub(crate) hold: Duration,
}

impl Oracle {
    pub(crate) fn hurt(&self, life: Life) -> impl Iterator<Item = &Loss> {
        self.losses.iter().filter(move |loss| loss.terms.life == life)
    }

    /// Whether somebody may miss a replica at a moment.
    pub(crate) fn excuses(&self, life: Life, at: Instant, controls: &LatenessMonitor) -> bool {
        self.hurt(life).any(|loss| {
            loss.at <= at
                && loss.until.is_none_or(|until| {
                    at <= until + RETURN_MAX + self.hold + HOPS * controls.worst(until, at)
                })
        })
    }

    /// Whether any replica could not answer in a time, or only just could again.
    pub(crate) fn excuses_calls(&self, from: Instant, until: Instant) -> bool {
        self.losses.iter().any(|loss| {
            let back = loss.until.unwrap_or(self.due(loss) + LATE_MAX) + RETURN_MAX;
            loss.at <= until && from <= back
        })
    }

    /// How long the lease of the lost lasts, were the registry always there.
    pub(crate) fn lease(&self, loss: &Loss) -> Duration {
        let Loss { terms, cause, .. } = loss;
        match cause {
            Cause::Killed if self.is_settled(loss) => terms.grace(),
            Cause::Killed | Cause::Stopped => terms.ttl,
        }
    }

    /// Whether the lease was certainly renewed over a stream before, by a registry that runs.
    fn is_settled(&self, loss: &Loss) -> bool {
        loss.settled && !self.outages.iter().any(|outage| outage.from <= loss.at)
    }

    /// Whether no outage of the registry has to do with a loss.
    pub(crate) fn is_plain(&self, loss: &Loss) -> bool {
        let end = loss.at + self.lease(loss) + LATE_MAX;
        self.is_settled(loss)
            && !self.outages.iter().any(|outage| outage.from < end && loss.at < outage.until)
    }

    /// When the lease of the lost ends.
    fn due(&self, loss: &Loss) -> Instant {
        let mut due = loss.at + self.lease(loss);
        for outage in &self.outages {
            match outage.kind {
                OutageKind::Stopped if outage.from < due && loss.at < outage.until => {
                    due += outage.until - outage.from.max(loss.at) + CATCH_UP;
                }
                // It may be known to those alone who knew it before.
                OutageKind::Killed if outage.from < due && loss.at < outage.until + RETURN_MAX => {
                    due = due.max(outage.until + self.hold);
                }
                OutageKind::Stopped | OutageKind::Killed => {}
            }
        }
        due
    }

    /// By when the lost has to be out of every view, on a machine as late as the controls say.
    pub(crate) fn deadline(&self, loss: &Loss, controls: &LatenessMonitor) -> Instant {
        let end = self.due(loss) + LATE_MAX;
        end + HOPS * controls.worst(loss.at, end)
    }
}
