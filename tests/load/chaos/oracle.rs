//! The true state over time, from the signals that were sent: the deadlines of the dead, and the
//! replicas that may be missing.

use std::time::{Duration, Instant};

use waypost_testing::lateness::LatenessMonitor;

use crate::chaos::{
    outage::{Outage, OutageKind},
    replica::{Incarnation, ReplicaConfig},
};

/// The contract's tolerance beyond a TTL or a grace.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(100);
/// The extension that a stalled registry grants to waiting heartbeats, and a little more for the
/// moment before.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Threads on the way of a removal that this machine may wake late: those of the wheel, the
/// connection, the client and the caller; and the kernel's, which closes the sockets of a dead
/// process.
const HOPS: u32 = 5;
/// The time in which a continued replica finds its lease lost and registers again.
const RETURN_MAX: Duration = Duration::from_secs(2);
/// A fault of a replica.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) terms: ReplicaConfig,
    pub(crate) at: Instant,
    /// The time of its continuation; `None` for one that was killed.
    pub(crate) until: Option<Instant>,
    pub(crate) cause: Cause,
    /// True where it had been registered for a while.
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
    /// The time for which callers keep instances that a new history lacks, and the time to detect
    /// one.
    pub(crate) hold: Duration,
}

impl Oracle {
    pub(crate) fn hurt(&self, life: Incarnation) -> impl Iterator<Item = &Loss> {
        self.losses.iter().filter(move |loss| loss.terms.life == life)
    }

    /// True where a replica may be missing at a moment.
    pub(crate) fn excuses(
        &self,
        life: Incarnation,
        at: Instant,
        controls: &LatenessMonitor,
    ) -> bool {
        self.hurt(life).any(|loss| {
            loss.at <= at
                && loss.until.is_none_or(|until| {
                    at <= until + RETURN_MAX + self.hold + HOPS * controls.worst(until, at)
                })
        })
    }

    /// True where any replica could not respond in a time, or only just could again.
    pub(crate) fn excuses_calls(&self, from: Instant, until: Instant) -> bool {
        self.losses.iter().any(|loss| {
            let back = loss.until.unwrap_or(self.due(loss) + LATE_MAX) + RETURN_MAX;
            loss.at <= until && from <= back
        })
    }

    /// The length of a lost replica's lease, if the registry is always there.
    pub(crate) fn lease(&self, loss: &Loss) -> Duration {
        let Loss { terms, cause, .. } = loss;
        match cause {
            Cause::Killed if self.is_settled(loss) => terms.grace(),
            Cause::Killed | Cause::Stopped => terms.ttl,
        }
    }

    /// True where the lease was certainly renewed over a stream before, by a running registry.
    fn is_settled(&self, loss: &Loss) -> bool {
        loss.settled && !self.outages.iter().any(|outage| outage.from <= loss.at)
    }

    /// True where no outage of the registry affects a loss.
    pub(crate) fn is_plain(&self, loss: &Loss) -> bool {
        let end = loss.at + self.lease(loss) + LATE_MAX;
        self.is_settled(loss)
            && !self.outages.iter().any(|outage| outage.from < end && loss.at < outage.until)
    }

    /// The end of a lost replica's lease.
    fn due(&self, loss: &Loss) -> Instant {
        let mut due = loss.at + self.lease(loss);
        for outage in &self.outages {
            match outage.kind {
                OutageKind::Stopped if outage.from < due && loss.at < outage.until => {
                    due += outage.until - outage.from.max(loss.at) + CATCH_UP;
                }
                // Only callers that had it before may still have it.
                OutageKind::Killed if outage.from < due && loss.at < outage.until + RETURN_MAX => {
                    due = due.max(outage.until + self.hold);
                }
                OutageKind::Stopped | OutageKind::Killed => {}
            }
        }
        due
    }

    /// The time by which the lost must be out of every view, on a machine as late as the monitors
    /// measure.
    pub(crate) fn deadline(&self, loss: &Loss, controls: &LatenessMonitor) -> Instant {
        let end = self.due(loss) + LATE_MAX;
        end + HOPS * controls.worst(loss.at, end)
    }
}
